package ipvs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/pool"
	"meshd/lb/ipvs/genl"
	"meshd/lb/sysctl"
)

// Driver implements lb.Driver with IPVS. It is used by one goroutine at a
// time.
type Driver struct {
	cfg Config // as New checked it

	// What it works with; nil until Setup.
	kernel *limited // IPVS of the namespace
	pools  pools    // pools and marks beside it

	// What it knows of the kernel.
	known          *lb.Table // what was applied, or read
	marks          *marks    // of services for all ports
	read           bool      // known is what the kernel held, and what was applied since
	skips          bool      // this kernel's /proc/net/ip_vs leaves services out
	timeoutsLogged bool      // the log has the kernel's timeouts

	// Left over by a previous run, as of the last Snapshot; the next Apply
	// removes them.
	orphans []genl.ID // services of marks that belong to no address
	missing []lb.Key  // services with a mark that are not there

	// What Apply has to remember of its own doing.
	parked map[lb.Key]bool // services for all ports whose mark no packet gets

	// Reused by Apply.
	reqs []genl.Request // of a batch
	todo []pending      // in it, by request

	// The fences, replaced in tests.
	openKernel  func() (kernel, error)       // opens IPVS of the namespace
	openPools   func() (pools, error)        // opens what is beside it
	present     func() (bool, error)         // is IPVS loaded in the namespace
	probe       func() error                 // as Probe, without a limit of time
	logTimeouts func()                       // says when IPVS forgets idle connections
	setSysctls  func() ([]string, error)     // makes the settings; returns those that it changed
	sysctlDrift func() ([]lb.Finding, error) // what of the settings differs
}

// New returns the driver. It opens nothing before Probe or Setup. The error
// names the setting that is wrong.
func New(cfg Config) (*Driver, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	poolConfig := pool.Config{
		NetNS: cfg.NetNS, Local: cfg.Local, OnSysctl: cfg.OnSysctl, Listener: cfg.Listener,
		Log: cfg.Log,
	}
	return &Driver{
		cfg: cfg, known: lb.NewTable(), marks: newMarks(cfg.MarkCount), parked: map[lb.Key]bool{},
		openKernel: func() (kernel, error) { return openKernel(cfg.NetNS, cfg.CallLimit) },
		openPools:  func() (pools, error) { return pool.NewMarked(poolConfig) },
		present:    func() (bool, error) { return tablePresent(cfg.NetNS) },
		probe: func() error {
			if err := probeIPVS(cfg.NetNS, cfg.CallLimit); err != nil {
				return err
			}
			if err := probeSysctls(cfg.NetNS); err != nil {
				return err
			}
			return pool.Probe(poolConfig)
		},
		logTimeouts: func() { logTimeouts(cfg.NetNS, cfg.Log) },
		setSysctls:  func() ([]string, error) { return sysctl.Set(cfg.NetNS, sysctls(cfg.NetNS), cfg.OnSysctl) },
		sysctlDrift: func() ([]lb.Finding, error) { return sysctl.Check(cfg.NetNS, sysctls(cfg.NetNS)) },
	}, nil
}

// Name implements lb.Driver.
func (d *Driver) Name() string { return "ipvs" }

// Probe implements lb.Driver: it asks the namespace's own IPVS for its
// version, because moby/ipvs does not notice that there is none, and tries what
// lb/internal/pool needs. It may load the module ip_vs; nothing else is left.
func (d *Driver) Probe(context.Context) error {
	return (&limited{limit: d.cfg.CallLimit}).call(func(kernel) error { return d.probe() })
}

// Setup implements lb.Driver, in the order of L2: sysctls, guard, masquerade
// and marks.
func (d *Driver) Setup(context.Context) error {
	if err := d.open(); err != nil {
		return err
	}
	changed, err := d.setSysctls()
	if len(changed) > 0 {
		d.cfg.Log.Info("sysctls set", slog.Any("keys", changed))
	}
	if err != nil {
		return err
	}
	if err := d.pools.Setup(); err != nil {
		return err
	}
	d.adoptMarks()
	if !d.timeoutsLogged {
		once := &limited{limit: d.cfg.CallLimit} // moby/ipvs waits for ever
		if err := once.call(func(kernel) error { d.logTimeouts(); return nil }); err != nil {
			d.cfg.Log.Warn("IPVS' timeouts are unknown", slog.Any("error", err))
		}
		d.timeoutsLogged = true
	}
	return nil
}

// open opens what is not open, and what does not answer any more.
func (d *Driver) open() error {
	if d.pools == nil {
		opened, err := d.openPools()
		if err != nil {
			return err
		}
		d.pools = opened
	}
	if d.kernel != nil && !d.kernel.stuck && d.alive() == nil {
		return nil
	}
	d.closeKernel()
	var k kernel
	opener := &limited{limit: d.cfg.CallLimit}
	if err := opener.call(func(kernel) (err error) { k, err = d.openKernel(); return err }); err != nil {
		return err
	}
	d.kernel = &limited{kernel: k, limit: d.cfg.CallLimit}
	return nil
}

// alive asks whether IPVS is still the one that was opened.
func (d *Driver) alive() error {
	return d.kernel.call(func(k kernel) error {
		_, err := k.Info()
		return explain("ask IPVS for its version", err)
	})
}

// closeKernel closes the sockets, unless a stuck call still has them.
func (d *Driver) closeKernel() {
	if d.kernel != nil && !d.kernel.busy {
		_ = d.kernel.kernel.Close()
	}
	d.kernel, d.reqs, d.read, d.skips = nil, nil, false, false
}

// Check implements lb.Driver: the rules of lb/internal/pool, sysctls of IPVS, and whether IPVS
// is still there. Services are Snapshot's.
func (d *Driver) Check(context.Context) ([]lb.Finding, error) {
	if d.pools == nil || d.kernel == nil {
		return nil, fmt.Errorf("%w: not set up", lb.ErrDrift)
	}
	found, err := d.pools.Check()
	more, sysctlErr := d.sysctlDrift()
	return append(found, more...), errors.Join(err, sysctlErr, d.alive())
}

// Number implements lb.Numbered: of the rules beside the services, since IPVS
// numbers nothing.
func (d *Driver) Number(context.Context) (uint64, error) {
	if d.pools == nil {
		return 0, fmt.Errorf("%w: not set up", lb.ErrDrift)
	}
	return d.pools.Number()
}

// Teardown implements lb.Driver: our services, then marks, guard, masquerade
// and routes. It does not load IPVS to find that nothing is there.
func (d *Driver) Teardown(context.Context) error {
	ours, err := d.find()
	if err != nil {
		return err
	}
	var errs []error
	for from := 0; from < len(ours); from += maxBatch {
		batch := ours[from:min(from+maxBatch, len(ours))]
		reqs := make([]genl.Request, len(batch))
		for i := range batch {
			reqs[i] = genl.Request{Command: genl.DelService, Service: genl.Service{ID: batch[i].id}}
		}
		for i, err := range d.do(reqs) {
			if err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("%s: %w", batch[i].name(), err))
			}
		}
	}
	d.known, d.marks = lb.NewTable(), newMarks(d.cfg.MarkCount)
	d.orphans, d.missing, d.read = nil, nil, false
	clear(d.parked)
	return errors.Join(append(errs, d.pools.Teardown())...)
}

// Remnants implements lb.Driver. Sysctls are not among them: who knows how they
// were found puts them back (sysctl.PutBack).
func (d *Driver) Remnants(context.Context) ([]lb.Remnant, error) {
	ours, err := d.find()
	if err != nil {
		return nil, err
	}
	all, err := d.pools.Remnants()
	for _, s := range ours {
		all = append(all, lb.Remnant{
			Area: lb.AreaService, What: "virtual service " + s.name(),
			Detail: fmt.Sprintf("%d backends", len(s.backends)),
		})
	}
	lb.SortRemnants(all)
	return all, err
}

// remnant is a service of ours, perhaps of a previous run.
type remnant struct {
	id       genl.ID
	key      lb.Key
	backends []lb.Backend
}

func (r *remnant) name() string {
	if r.key.VIP.IsValid() {
		return r.key.String()
	}
	return fmt.Sprintf("of firewall mark %#x", r.id.Mark)
}

// find lists our services without Setup and without changing anything.
func (d *Driver) find() ([]remnant, error) {
	if d.pools == nil {
		opened, err := d.openPools()
		if err != nil {
			return nil, err
		}
		d.pools = opened
	}
	if err := d.pools.Discover(); err != nil {
		return nil, err
	}
	present, err := d.present()
	if err != nil || !present {
		return nil, err
	}
	if d.kernel == nil || d.kernel.stuck {
		if err := d.open(); err != nil {
			return nil, err
		}
	}
	d.adoptMarks()
	r, err := d.readTable()
	if err != nil {
		return nil, err
	}
	var all []remnant
	for k, s := range r.services {
		id, _ := d.id(k)
		all = append(all, remnant{id: id, key: k, backends: s.Backends})
	}
	for _, id := range r.orphans {
		all = append(all, remnant{id: id})
	}
	return all, nil
}

// Close implements lb.Driver.
func (d *Driver) Close() error {
	d.closeKernel()
	if d.pools == nil {
		return nil
	}
	err := d.pools.Close()
	d.pools = nil
	return err
}

// validate checks the settings and fills in defaults.
func (c *Config) validate() error {
	if c.Log == nil {
		return errors.New("ipvs: Log: missing; pass a slog.Logger")
	}
	if c.MarkCount == 0 {
		c.MarkCount = 65536
	}
	if c.MarkCount > maxMarks {
		return fmt.Errorf("ipvs: MarkCount %d: more than %d, for which marks have bits", c.MarkCount, maxMarks)
	}
	if c.CallLimit <= 0 {
		c.CallLimit = 10 * time.Second
	}
	return nil
}
