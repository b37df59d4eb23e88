package ipvs

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	mobyipvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/state"
)

var (
	pool4 = netip.MustParsePrefix("10.96.0.0/16")
	pool6 = netip.MustParsePrefix("fd96::/64")
)

func setup(t *testing.T) (*fakeKernel, *fakeHelpers, *Driver) {
	k := &fakeKernel{services: map[string]*fakeService{}}
	h := &fakeHelpers{pools: map[netip.Prefix]lb.Pool{}, marks: map[netip.Addr]uint32{}}
	return k, h, newFake(t, k, h)
}

func sample() *lb.Table {
	t := lb.NewTable()
	for _, p := range []netip.Prefix{pool4, pool6} {
		t.Pools[p] = lb.Pool{Prefix: p}
	}
	back := func(addr string, w uint32) lb.Backend {
		return lb.Backend{Addr: netip.MustParseAddrPort(addr), Weight: w}
	}
	for _, s := range []*lb.Service{
		{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: state.TCP}, Scheduler: "wlc", Backends: []lb.Backend{back("10.0.0.1:80", 5), back("10.0.0.2:80", 0)}},
		{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 53, Proto: state.UDP}, Scheduler: "rr", Backends: []lb.Backend{back("10.0.0.1:53", 1)}},
		{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.2")}, Scheduler: "wrr", Backends: []lb.Backend{back("10.0.0.3:0", 1)}},
		{Key: lb.Key{VIP: netip.MustParseAddr("fd96::2")}, Scheduler: "wrr", Backends: []lb.Backend{back("[fd01::3]:0", 1)}},
		{Key: lb.Key{VIP: netip.MustParseAddr("fd96::3"), Port: 443, Proto: state.TCP}, Scheduler: "mh", Affinity: time.Minute, Backends: []lb.Backend{back("[fd01::1]:443", 2)}},
		{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.9"), Port: 80, Proto: state.TCP}, Scheduler: "mh"},
	} {
		t.Services[s.Key] = s
	}
	return t
}

func apply(t *testing.T, d *Driver, ops []lb.Op) {
	t.Helper()
	for i, err := range d.Apply(t.Context(), ops) {
		if err != nil {
			t.Fatalf("%s: %v", ops[i], err)
		}
	}
}

func always(lb.Key, netip.AddrPort) bool { return true }

// What is applied is read back, also by the next process (L1).
func TestRoundTrip(t *testing.T) {
	k, h, d := setup(t)
	want := sample()
	apply(t, d, lb.Diff(lb.NewTable(), want, lb.Policy{}))
	for _, who := range []*Driver{d, newFake(t, k, h)} {
		got, err := who.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ops := lb.Diff(got, want, lb.Policy{Drained: always}); len(ops) > 0 || len(got.Services) != len(want.Services) {
			t.Errorf("read back with differences: %v", ops)
		}
		if found, err := who.Check(t.Context()); err != nil || len(found) > 0 {
			t.Error(found, err)
		}
	}
}

// Rule L3: one mark per address and family, stable over a restart, freed at the end.
func TestMarks(t *testing.T) {
	k, h, d := setup(t)
	apply(t, d, lb.Diff(lb.NewTable(), sample(), lb.Policy{}))
	four, six := netip.MustParseAddr("10.96.0.2"), netip.MustParseAddr("fd96::2")
	if h.marks[four] != d.cfg.FirstMark || h.marks[six] != d.cfg.FirstMark {
		t.Errorf("marks %v", h.marks)
	}
	again := newFake(t, k, h)
	got, _ := again.Snapshot(t.Context())
	none := lb.NewTable()
	none.Pools = got.Pools
	for range 2 {
		ops := lb.Diff(got, none, lb.Policy{Drained: always})
		apply(t, again, ops)
		got.Apply(ops, nil)
	}
	if len(h.marks) != 0 || len(k.services) != 0 {
		t.Errorf("left behind: marks %v, services %v", h.marks, k.services)
	}
}

// Rule L1: what is not ours stays, whatever we do.
func TestForeignServices(t *testing.T) {
	k, _, d := setup(t)
	foreign := []*mobyipvs.Service{
		{Address: netip.MustParseAddr("192.0.2.1").AsSlice(), Port: 80, Protocol: 6, SchedName: "rr", AddressFamily: unix.AF_INET},
		{FWMark: 256, SchedName: "rr", AddressFamily: unix.AF_INET},
	}
	for _, s := range foreign {
		if err := k.NewService(s); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, d, lb.Diff(lb.NewTable(), sample(), lb.Policy{}))
	got, err := d.Snapshot(t.Context())
	if err != nil || len(got.Services) != len(sample().Services) {
		t.Errorf("%d services of ours, %v", len(got.Services), err)
	}
	if err := d.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(k.services) != len(foreign) {
		t.Errorf("after teardown %d services, want the %d foreign ones", len(k.services), len(foreign))
	}
}

// A kernel that is not as we think is corrected by its own answers.
func TestUnexpectedState(t *testing.T) {
	k, _, d := setup(t)
	table := sample()
	apply(t, d, lb.Diff(lb.NewTable(), table, lb.Policy{}))
	web := table.Services[lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: state.TCP}]
	set := lb.Op{Kind: lb.SetBackend, Key: web.Key, Backend: lb.Backend{Addr: web.Backends[0].Addr, Weight: 3}}

	clear(k.services[serviceName(toService(web, 0))].dests)
	apply(t, d, []lb.Op{set}) // update of a missing destination: ENOENT, then new
	clear(k.services)
	if errs := d.Apply(t.Context(), []lb.Op{set}); len(errs) != 1 || !errors.Is(errs[0], lb.ErrDrift) {
		t.Errorf("backend of a vanished service: %v, want drift", errs)
	}
	if _, err := d.Check(t.Context()); !errors.Is(err, lb.ErrDrift) {
		t.Errorf("check: %v, want drift", err)
	}
	apply(t, d, []lb.Op{{Kind: lb.SetService, Key: web.Key, Service: web}, set})
	apply(t, d, []lb.Op{
		{Kind: lb.DelBackend, Key: web.Key, Backend: set.Backend},
		{Kind: lb.DelBackend, Key: web.Key, Backend: set.Backend},
		{Kind: lb.DelService, Key: web.Key},
		{Kind: lb.DelService, Key: web.Key},
	})
}

func TestErrorsSayWhatToDo(t *testing.T) {
	_, _, d := setup(t)
	bad := &lb.Service{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: state.TCP}, Scheduler: "twos"}
	good := *bad
	good.Port, good.Scheduler = 81, "rr"
	errs := d.Apply(t.Context(), []lb.Op{
		{Kind: lb.SetService, Key: bad.Key, Service: bad},
		{Kind: lb.SetService, Key: good.Key, Service: &good},
		{Kind: lb.DelService, Key: bad.Key},
	})
	if errs[0] == nil || !strings.Contains(errs[0].Error(), "ip_vs_twos") || errs[1] != nil || errs[2] == nil {
		t.Errorf("%v; want the module's name, success, and no removal after a failure", errs)
	}
	d.cfg.MarkCount = 1
	first, second := &lb.Service{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.3")}, Scheduler: "rr"}, &lb.Service{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.4")}, Scheduler: "rr"}
	errs = d.Apply(t.Context(), []lb.Op{{Kind: lb.SetService, Key: first.Key, Service: first}, {Kind: lb.SetService, Key: second.Key, Service: second}})
	if errs[0] != nil || errs[1] == nil || !strings.Contains(errs[1].Error(), "declare its ports") {
		t.Errorf("out of marks: %v", errs)
	}
}

// Rule L7: moby/ipvs waits for ever for an answer that does not come.
func TestStuckKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, h, d := setup(t)
		k.block = make(chan struct{})
		pool := lb.Op{Kind: lb.SetPool, Pool: lb.Pool{Prefix: pool4}}
		s := &lb.Service{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: state.TCP}, Scheduler: "rr"}
		errs := d.Apply(t.Context(), []lb.Op{pool, {Kind: lb.SetService, Key: s.Key, Service: s}})
		if errs[0] != nil || !errors.Is(errs[1], errStuck) {
			t.Fatal(errs)
		}
		if errs = d.Apply(t.Context(), []lb.Op{{Kind: lb.SetService, Key: s.Key, Service: s}}); !errors.Is(errs[0], errStuck) {
			t.Errorf("after that: %v, want no further call", errs)
		}
		close(k.block)
		synctest.Wait()
		k.block = nil
		if err := d.Setup(t.Context()); err != nil { // a new handle
			t.Fatal(err)
		}
		apply(t, d, []lb.Op{{Kind: lb.SetService, Key: s.Key, Service: s}})
		if len(k.services) != 1 || len(h.pools) != 1 {
			t.Error(k.services, h.pools)
		}
	})
}

func TestUsage(t *testing.T) {
	k, _, d := setup(t)
	table := sample()
	apply(t, d, lb.Diff(lb.NewTable(), table, lb.Policy{}))
	web := lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: state.TCP}
	one := k.services[serviceName(toService(table.Services[web], 0))]
	for name, dest := range one.dests {
		dest.ActiveConnections, dest.InactiveConnections = 2, 3
		one.dests[name] = dest
	}
	k.calls = nil
	usage, err := d.Usage(t.Context(), []lb.Key{web})
	if err != nil || usage[web].Backends[netip.MustParseAddrPort("10.0.0.1:80")].Active != 5 || len(usage) != 1 {
		t.Errorf("%+v, %v", usage, err)
	}
	if !slices.Equal(k.calls, []string{"get"}) {
		t.Errorf("calls %v, want one request for one service", k.calls)
	}
}

// The real probe, on whatever kernel this is: it must not claim what is not there.
func TestProbeHere(t *testing.T) {
	d, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	err = d.Probe(t.Context())
	t.Logf("probe: %v", err)
	if err != nil && !errors.Is(err, lb.ErrUnsupported) {
		t.Errorf("%v; want success or a reason", err)
	}
}
