package ipvs

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"testing"

	mobyipvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// fakeKernel is a little IPVS: its errnos are those measured on a real one.
type fakeKernel struct {
	services map[string]*fakeService
	block    chan struct{} // non-nil: calls wait for it
	calls    []string
}

type fakeService struct {
	svc   mobyipvs.Service
	dests map[string]mobyipvs.Destination
}

func serviceName(s *mobyipvs.Service) string {
	if s.FWMark != 0 {
		return fmt.Sprintf("fwm %#x/%d", s.FWMark, s.AddressFamily)
	}
	return fmt.Sprintf("%s %d/%d", s.Address, s.Port, s.Protocol)
}

func destName(d *mobyipvs.Destination) string { return fmt.Sprintf("%s %d", d.Address, d.Port) }

func (f *fakeKernel) enter(what string, s *mobyipvs.Service) (*fakeService, error) {
	if f.block != nil {
		<-f.block
	}
	f.calls = append(f.calls, what)
	if one := f.services[serviceName(s)]; one != nil {
		return one, nil
	}
	return nil, unix.ESRCH
}

func (f *fakeKernel) GetServices() ([]*mobyipvs.Service, error) {
	var all []*mobyipvs.Service
	for _, s := range f.services {
		svc := s.svc
		all = append(all, &svc)
	}
	return all, nil
}

func (f *fakeKernel) GetDestinations(s *mobyipvs.Service) ([]*mobyipvs.Destination, error) {
	var all []*mobyipvs.Destination
	if one, err := f.enter("get", s); err == nil { // of a missing service: empty, no error
		for _, d := range one.dests {
			all = append(all, &d)
		}
	}
	return all, nil
}

func (f *fakeKernel) NewService(s *mobyipvs.Service) error {
	if one, _ := f.enter("new service", s); one != nil {
		return unix.EEXIST
	}
	return f.put(s, map[string]mobyipvs.Destination{})
}

func (f *fakeKernel) put(s *mobyipvs.Service, dests map[string]mobyipvs.Destination) error {
	switch {
	case s.SchedName == "twos":
		return unix.ENOENT
	case s.AddressFamily == unix.AF_INET6 && s.Netmask != 128:
		return unix.EINVAL
	}
	svc := *s
	svc.Flags |= flagHashed
	f.services[serviceName(s)] = &fakeService{svc: svc, dests: dests}
	return nil
}

func (f *fakeKernel) UpdateService(s *mobyipvs.Service) error {
	one, err := f.enter("update service", s)
	if err != nil {
		return err
	}
	return f.put(s, one.dests)
}

func (f *fakeKernel) DelService(s *mobyipvs.Service) error {
	if _, err := f.enter("del service", s); err != nil {
		return err
	}
	delete(f.services, serviceName(s))
	return nil
}

func (f *fakeKernel) NewDestination(s *mobyipvs.Service, d *mobyipvs.Destination) error {
	one, err := f.enter("new dest", s)
	if err != nil {
		return err
	}
	if _, ok := one.dests[destName(d)]; ok {
		return unix.EEXIST
	}
	one.dests[destName(d)] = *d
	return nil
}

func (f *fakeKernel) UpdateDestination(s *mobyipvs.Service, d *mobyipvs.Destination) error {
	one, err := f.enter("update dest", s)
	if err != nil {
		return err
	}
	if _, ok := one.dests[destName(d)]; !ok {
		return unix.ENOENT
	}
	one.dests[destName(d)] = *d
	return nil
}

func (f *fakeKernel) DelDestination(s *mobyipvs.Service, d *mobyipvs.Destination) error {
	one, err := f.enter("del dest", s)
	if err != nil {
		return err
	}
	if _, ok := one.dests[destName(d)]; !ok {
		return unix.ENOENT
	}
	delete(one.dests, destName(d))
	return nil
}

func (f *fakeKernel) Close() {}

// fakeHelpers keeps pools and marks in memory.
type fakeHelpers struct {
	pools map[netip.Prefix]lb.Pool
	marks map[netip.Addr]uint32
}

func (h *fakeHelpers) Setup() error                         { return nil }
func (h *fakeHelpers) Check() ([]lb.Finding, error)         { return nil, nil }
func (h *fakeHelpers) Teardown() error                      { clear(h.pools); clear(h.marks); return nil }
func (h *fakeHelpers) SetPool(p lb.Pool) error              { h.pools[p.Prefix] = p; return nil }
func (h *fakeHelpers) DelPool(p netip.Prefix) error         { delete(h.pools, p); return nil }
func (h *fakeHelpers) Pools() map[netip.Prefix]lb.Pool      { return maps.Clone(h.pools) }
func (h *fakeHelpers) Marks() map[netip.Addr]uint32         { return maps.Clone(h.marks) }
func (h *fakeHelpers) SetMark(a netip.Addr, m uint32) error { h.marks[a] = m; return nil }
func (h *fakeHelpers) DelMark(a netip.Addr) error           { delete(h.marks, a); return nil }
func (h *fakeHelpers) RemoveServices() error                { return nil }
func (h *fakeHelpers) Close() error                         { return nil }

// newFake returns a driver over a kernel and helpers that outlive it.
func newFake(t testing.TB, k *fakeKernel, h *fakeHelpers) *Driver {
	t.Helper()
	d, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d.openKernel = func(string) (kernel, error) { return k, nil }
	d.openHelpers = func() (helpers, error) { return h, nil }
	d.probe, d.sysctl = func() error { return nil }, func() error { return nil }
	if err := d.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}
