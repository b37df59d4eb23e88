package ipvs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	mobyipvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/nft"
)

// Driver implements lb.Driver with IPVS. It is used by one goroutine at a
// time.
type Driver struct {
	cfg    Config
	kernel *limited // nil until Setup
	help   helpers  // nil until Setup
	known  *lb.Table

	// The fences, replaced in tests.
	openKernel  func(path string) (kernel, error)
	openHelpers func() (helpers, error)
	probe       func() error
	sysctl      func() error
}

// New returns the driver. It opens nothing before Probe or Setup.
func New(cfg Config) (*Driver, error) {
	if cfg.Log == nil {
		return nil, errors.New("ipvs: Log: missing; pass a slog.Logger")
	}
	cfg.setDefaults()
	helperCfg := nft.Config{NetNS: cfg.NetNS, Local: cfg.Local, Log: cfg.Log}
	return &Driver{
		cfg: cfg, known: lb.NewTable(), openKernel: openKernel,
		openHelpers: func() (helpers, error) { return nft.NewHelpers(helperCfg, true) },
		probe: func() error {
			if err := probeFamily(); err != nil {
				return err
			}
			return nft.ProbeHelpers(helperCfg)
		},
		sysctl: func() error {
			changed, err := nft.SetSysctls(cfg.NetNS, sysctls())
			if len(changed) > 0 {
				cfg.Log.Info("sysctls set", slog.Any("keys", changed))
			}
			return err
		},
	}, nil
}

// Name implements lb.Driver.
func (d *Driver) Name() string { return "ipvs" }

// Probe implements lb.Driver: it looks for IPVS itself, because moby/ipvs does
// not notice its absence, and for what the helper rules need.
func (d *Driver) Probe(context.Context) error { return d.probe() }

// Setup implements lb.Driver. Helper rules come before sysctls of IPVS, whose
// directory appears with the module, and both before any service (L2). The
// services of the nft driver, if it ran here before, are removed.
func (d *Driver) Setup(context.Context) error {
	if d.help == nil {
		help, err := d.openHelpers()
		if err != nil {
			return err
		}
		d.help = help
	}
	if d.kernel == nil || d.kernel.stuck {
		k, err := d.openKernel(d.cfg.NetNS)
		if err != nil {
			return explain("open IPVS", err)
		}
		d.kernel = &limited{kernel: k, limit: d.cfg.CallLimit}
	}
	if err := d.sysctl(); err != nil {
		return err
	}
	if err := d.help.Setup(); err != nil {
		return err
	}
	return d.help.RemoveServices()
}

// explain turns the kernel's errno into what an operator can act on.
func explain(what string, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: no CAP_NET_ADMIN (%s: %w); run as root or grant the capability", lb.ErrUnsupported, what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Apply implements lb.Driver, one operation after the other.
func (d *Driver) Apply(ctx context.Context, ops []lb.Op) []error {
	errs := make([]error, len(ops))
	broken := map[lb.Key]error{}
	failed := false
	for i, op := range ops {
		err := ctx.Err()
		if err == nil && op.Kind == lb.DelService {
			err = broken[op.Key]
		}
		if err == nil {
			err = d.do(op)
		}
		if err != nil {
			errs[i], broken[op.Key], failed = err, err, true
			continue
		}
		d.known.Apply(ops[i:i+1], nil)
	}
	if !failed {
		return nil
	}
	return errs
}

func (d *Driver) do(op lb.Op) error {
	if d.help == nil {
		return errors.New("ipvs: Apply before Setup")
	}
	switch op.Kind {
	case lb.SetPool:
		return d.help.SetPool(op.Pool)
	case lb.DelPool:
		return d.help.DelPool(op.Pool.Prefix)
	case lb.SetService:
		return d.setService(op.Service)
	case lb.DelService:
		return d.delService(op.Key)
	case lb.SetBackend:
		return d.setBackend(op.Key, op.Backend)
	case lb.DelBackend:
		return d.delBackend(op.Key, op.Backend)
	}
	return fmt.Errorf("ipvs: operation %s is unknown", op)
}

// setService creates or changes; which of the two is a guess that the kernel
// corrects.
func (d *Driver) setService(s *lb.Service) error {
	mark, err := d.markFor(s.Key)
	if err != nil {
		return err
	}
	svc := toService(s, mark)
	if d.known.Services[s.Key] != nil {
		err = d.kernel.call(func(k kernel) error { return k.UpdateService(svc) })
		if errors.Is(err, unix.ESRCH) {
			err = d.kernel.call(func(k kernel) error { return k.NewService(svc) })
		}
	} else {
		err = d.kernel.call(func(k kernel) error { return k.NewService(svc) })
		if errors.Is(err, unix.EEXIST) {
			err = d.kernel.call(func(k kernel) error { return k.UpdateService(svc) })
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("scheduler %q: %w; the kernel has no module ip_vs_%s: load it or choose another scheduler", s.Scheduler, err, s.Scheduler)
	}
	if err != nil {
		return fmt.Errorf("service %s: %w", s.Key, err)
	}
	if mark != 0 {
		return d.help.SetMark(s.VIP, mark)
	}
	return nil
}

// markFor returns the mark of a service for all ports: the one it has, or the
// first free one of the range.
func (d *Driver) markFor(k lb.Key) (uint32, error) {
	if !k.AllPorts() {
		return 0, nil
	}
	marks := d.help.Marks()
	if m, ok := marks[k.VIP]; ok && d.inRange(m) {
		return m, nil
	}
	taken := map[uint32]bool{}
	for a, m := range marks {
		if familyOf(a) == familyOf(k.VIP) {
			taken[m] = true
		}
	}
	for i := range d.cfg.MarkCount {
		if m := d.cfg.FirstMark + i; !taken[m] {
			return m, nil
		}
	}
	return 0, fmt.Errorf("service %s: all %d firewall marks are in use; declare its ports", k, d.cfg.MarkCount)
}

func (d *Driver) inRange(mark uint32) bool {
	return mark >= d.cfg.FirstMark && mark-d.cfg.FirstMark < d.cfg.MarkCount
}

// service returns what names a service to the kernel.
func (d *Driver) service(k lb.Key) *mobyipvs.Service {
	s := d.known.Services[k]
	if s == nil {
		s = &lb.Service{Key: k}
	}
	return toService(s, d.help.Marks()[k.VIP])
}

func (d *Driver) delService(k lb.Key) error {
	svc := d.service(k)
	if k.AllPorts() && svc.FWMark == 0 {
		return nil // never made: its mark would be there
	}
	err := d.kernel.call(func(h kernel) error { return h.DelService(svc) })
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("service %s: %w", k, err)
	}
	if k.AllPorts() { // last: the mark is taken until its service is gone
		return d.help.DelMark(k.VIP)
	}
	return nil
}

func (d *Driver) setBackend(k lb.Key, b lb.Backend) error {
	svc, dest := d.service(k), toDestination(b)
	add := func(h kernel) error { return h.NewDestination(svc, dest) }
	update := func(h kernel) error { return h.UpdateDestination(svc, dest) }
	known := false
	if s := d.known.Services[k]; s != nil {
		_, known = s.Backend(b.Addr)
	}
	var err error
	if known {
		if err = d.kernel.call(update); errors.Is(err, unix.ENOENT) {
			err = d.kernel.call(add)
		}
	} else if err = d.kernel.call(add); errors.Is(err, unix.EEXIST) {
		err = d.kernel.call(update)
	}
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: service %s is gone: %w", lb.ErrDrift, k, err)
	}
	if err != nil {
		return fmt.Errorf("service %s: backend %s: %w", k, b.Addr, err)
	}
	return nil
}

func (d *Driver) delBackend(k lb.Key, b lb.Backend) error {
	svc, dest := d.service(k), toDestination(b)
	err := d.kernel.call(func(h kernel) error { return h.DelDestination(svc, dest) })
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("service %s: backend %s: %w", k, b.Addr, err)
	}
	return nil
}

// Check implements lb.Driver: helper rules, sysctls of IPVS and, by number,
// our services.
func (d *Driver) Check(context.Context) ([]lb.Finding, error) {
	if d.help == nil {
		return nil, fmt.Errorf("%w: not set up", lb.ErrDrift)
	}
	found, err := d.help.Check()
	if err != nil {
		return found, err
	}
	if err := d.sysctl(); err != nil {
		return found, err
	}
	ours, err := d.services()
	if err != nil {
		return found, err
	}
	if len(ours) != len(d.known.Services) {
		return found, fmt.Errorf("%w: %d virtual services of ours, want %d", lb.ErrDrift, len(ours), len(d.known.Services))
	}
	return found, nil
}

// Remnants implements lb.Driver.
func (d *Driver) Remnants(context.Context) ([]lb.Remnant, error) { return nil, nil }

// Teardown implements lb.Driver: our services one by one, then the helpers.
func (d *Driver) Teardown(ctx context.Context) error {
	if err := d.Setup(ctx); err != nil {
		return err
	}
	ours, err := d.services()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range ours {
		err := d.kernel.call(func(k kernel) error { return k.DelService(s.kernel) })
		if err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("service %s: %w", s.ours.Key, err))
		}
	}
	d.known = lb.NewTable()
	return errors.Join(append(errs, d.help.Teardown())...)
}

// Close implements lb.Driver.
func (d *Driver) Close() error {
	if d.kernel != nil && !d.kernel.stuck {
		d.kernel.kernel.Close()
	}
	d.kernel = nil
	if d.help == nil {
		return nil
	}
	err := d.help.Close()
	d.help = nil
	return err
}

// found is a service in the kernel that is ours.
type found struct {
	kernel *mobyipvs.Service
	ours   *lb.Service
}

// services lists the kernel's services that are ours, without backends.
func (d *Driver) services() ([]found, error) {
	var list []*mobyipvs.Service
	err := d.kernel.call(func(k kernel) (err error) { list, err = k.GetServices(); return err })
	if err != nil {
		return nil, explain("list IPVS services", err)
	}
	vips := map[markKey]netip.Addr{}
	for a, m := range d.help.Marks() {
		if d.inRange(m) {
			vips[markKey{m, familyOf(a)}] = a
		}
	}
	pools := d.help.Pools()
	var ours []found
	for _, s := range list {
		if one, ok := fromService(s, vips, pools); ok {
			ours = append(ours, found{kernel: s, ours: one})
		}
	}
	return ours, nil
}
