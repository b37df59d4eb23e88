package ipvs

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/ipvs/genl"
)

// fakeKernel is a little IPVS: its errnos are those measured on a real one.
type fakeKernel struct {
	services map[genl.ID]*fakeService
	block    chan struct{} // non-nil: calls wait for it
	lose     int           // so many of the next answers are lost, after the requests were carried out
	calls    []string
	sent     int              // requests
	hidden   map[genl.ID]bool // left out of the table, as kernels do that have several namespaces
	closed   int
}

type fakeService struct {
	svc   genl.Service
	dests map[netip.AddrPort]*fakeDest
}

type fakeDest struct {
	genl.Destination

	active, inactive int
}

func newFakeKernel() *fakeKernel { return &fakeKernel{services: map[genl.ID]*fakeService{}} }

func (f *fakeKernel) enter(what string) {
	if f.block != nil {
		<-f.block
	}
	f.calls = append(f.calls, what)
}

func (f *fakeKernel) Do(reqs []genl.Request) []error {
	f.enter("do")
	f.sent += len(reqs)
	if len(reqs) > maxBatch {
		panic("more than one batch")
	}
	var errs []error
	for i := range reqs {
		err := f.one(&reqs[i])
		if f.lose > 0 {
			f.lose--
			err = fmt.Errorf("%w: %w", genl.ErrLost, unix.ENOBUFS)
		}
		if err != nil {
			if errs == nil {
				errs = make([]error, len(reqs))
			}
			errs[i] = err
		}
	}
	return errs
}

func (f *fakeKernel) one(r *genl.Request) error {
	s := f.services[r.Service.ID]
	if r.Command == genl.NewService {
		if s != nil {
			return unix.EEXIST
		}
		return f.put(r.Service, map[netip.AddrPort]*fakeDest{})
	}
	if s == nil {
		return unix.ESRCH
	}
	at := r.Destination.Addr
	switch d := s.dests[at]; r.Command {
	case genl.SetService:
		return f.put(r.Service, s.dests)
	case genl.DelService:
		delete(f.services, r.Service.ID)
	case genl.NewDestination:
		if d != nil {
			return unix.EEXIST
		}
		s.dests[at] = &fakeDest{Destination: r.Destination}
	case genl.SetDestination:
		if d == nil {
			return unix.ENOENT
		}
		d.Destination = r.Destination
	case genl.DelDestination:
		if d == nil {
			return unix.ENOENT
		}
		delete(s.dests, at)
	default:
		return unix.EINVAL
	}
	return nil
}

func (f *fakeKernel) put(s genl.Service, dests map[netip.AddrPort]*fakeDest) error {
	switch {
	case s.Scheduler == "twos":
		return unix.ENOENT
	case s.Family == genl.IPv6 && s.Netmask != 128:
		return unix.EINVAL
	}
	s.Flags |= flagHashed
	f.services[s.ID] = &fakeService{svc: s, dests: dests}
	return nil
}

func (f *fakeKernel) Info() (genl.Info, error) {
	f.enter("info")
	return genl.Info{Version: 0x10201}, nil
}

func (f *fakeKernel) Service(id genl.ID) (genl.Service, error) {
	f.enter("service")
	if s := f.services[id]; s != nil {
		return s.svc, nil
	}
	return genl.Service{}, unix.ESRCH
}

func (f *fakeKernel) Services() ([]genl.Service, error) {
	f.enter("services")
	var all []genl.Service
	for _, s := range f.services {
		all = append(all, s.svc)
	}
	return all, nil
}

func (f *fakeKernel) hides(id genl.ID) bool { return f.hidden[id] }

// Table tells what /proc/net/ip_vs would, no more.
func (f *fakeKernel) Table(each func(procService, []procBackend) error) error {
	f.enter("table")
	for id, s := range f.services {
		if f.hides(id) {
			continue
		}
		p := procService{
			proto: id.Proto, mark: id.Mark, scheduler: s.svc.Scheduler,
			persistent: s.svc.Flags&flagPersistent != 0,
		}
		if id.Mark == 0 {
			p.addr = netip.AddrPortFrom(id.Addr, id.Port)
		}
		var list []procBackend
		for _, d := range s.dests {
			b := procBackend{addr: d.Addr, forward: "Masq", weight: d.Weight, active: d.active, inactive: d.inactive}
			if d.Forward != genl.Masquerade {
				b.forward = "Route"
			}
			list = append(list, b)
		}
		if err := each(p, list); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeKernel) Destinations(id genl.ID, all []genl.DestinationState) ([]genl.DestinationState, error) {
	f.enter("destinations")
	if s := f.services[id]; s != nil {
		for _, d := range s.dests {
			all = append(all, genl.DestinationState{
				Destination: d.Destination, Active: uint32(d.active), Inactive: uint32(d.inactive),
				Stats: genl.Stats{Connections: 7},
			})
		}
	}
	return all, nil
}

func (f *fakeKernel) Close() error { f.closed++; return nil }

// fakePools keeps pools and marks in memory.
type fakePools struct {
	pools  map[netip.Prefix]lb.Pool
	marks  map[lb.Key]uint32
	serves map[lb.Key]bool
	writes int // transactions that set marks
	cut    []conntrack.Connections

	unmarked bool // by RemoveMarking
}

func newFakePools() *fakePools {
	return &fakePools{pools: map[netip.Prefix]lb.Pool{}, marks: map[lb.Key]uint32{}, serves: map[lb.Key]bool{}}
}

func (h *fakePools) Setup() error                    { return nil }
func (h *fakePools) Discover() error                 { return nil }
func (h *fakePools) Remnants() ([]lb.Remnant, error) { return nil, nil }
func (h *fakePools) Check() ([]lb.Finding, error)    { return nil, nil }
func (h *fakePools) Number() (uint64, error)         { return 1, nil }
func (h *fakePools) Teardown() error                 { clear(h.pools); clear(h.marks); return nil }
func (h *fakePools) SetPool(p lb.Pool) error         { h.pools[p.Prefix] = p; return nil }
func (h *fakePools) DelPool(p netip.Prefix) error    { delete(h.pools, p); return nil }
func (h *fakePools) Pools() map[netip.Prefix]lb.Pool { return maps.Clone(h.pools) }
func (h *fakePools) Marks() map[lb.Key]uint32        { return maps.Clone(h.marks) }
func (h *fakePools) DelMark(k lb.Key) error          { delete(h.marks, k); return nil }
func (h *fakePools) Cut(g []conntrack.Connections, _ func(lb.Key, netip.AddrPort) bool) error {
	h.cut = append(h.cut, g...)
	return nil
}
func (h *fakePools) RemoveMarking() error { h.unmarked = true; return nil }
func (h *fakePools) RemoveMarks() error   { clear(h.marks); clear(h.serves); return nil }
func (h *fakePools) RefuseAll() error     { clear(h.serves); return nil }
func (h *fakePools) Close() error         { return nil }

func (h *fakePools) Served() []lb.Key { return slices.Collect(maps.Keys(h.serves)) }

func (h *fakePools) Serve(more, less []lb.Key) error {
	for _, k := range less {
		delete(h.serves, k)
	}
	for _, k := range more {
		h.serves[k] = true
	}
	return nil
}

func (h *fakePools) SetMarks(m map[lb.Key]uint32) error {
	h.writes++
	maps.Copy(h.marks, m)
	return nil
}

func (h *fakePools) MoveMark(from, to lb.Key) error {
	if mark, ok := h.marks[from]; ok {
		delete(h.marks, from)
		h.marks[to] = mark
	}
	return nil
}

// newFake returns a driver over a kernel and pools that outlive it.
func newFake(t testing.TB, k *fakeKernel, h *fakePools) *Driver {
	t.Helper()
	d, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d.openKernel = func() (kernel, error) { return k, nil }
	d.openPools = func() (pools, error) { return h, nil }
	d.present = func() (bool, error) { return true, nil }
	d.probe = func() error { return nil }
	d.logTimeouts = func() {}
	d.setSysctls = func() ([]string, error) { return nil, nil }
	d.sysctlDrift = func() ([]lb.Finding, error) { return nil, nil }
	if err := d.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// names returns what the kernel holds, for comparison.
func (f *fakeKernel) names() []string {
	var all []string
	for id, s := range f.services {
		all = append(all, fmt.Sprintf("%v %d", id, len(s.dests)))
	}
	slices.Sort(all)
	return all
}
