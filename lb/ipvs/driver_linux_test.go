package ipvs

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"meshd/lb"
	"meshd/lb/internal/pool"
	"meshd/lb/ipvs/genl"
	"meshd/state"
)

var (
	pool4 = netip.MustParsePrefix("10.96.0.0/16")
	pool6 = netip.MustParsePrefix("fd96::/64")
)

func setup(t *testing.T) (*fakeKernel, *fakePools, *Driver) {
	k, h := newFakeKernel(), newFakePools()
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
		{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.2"), Proto: state.TCP}, Scheduler: "wrr", Backends: []lb.Backend{back("10.0.0.3:0", 1)}},
		{Key: lb.Key{VIP: netip.MustParseAddr("10.96.0.2"), Proto: state.UDP}, Scheduler: "wrr", Backends: []lb.Backend{back("10.0.0.3:0", 1)}},
		{Key: lb.Key{VIP: netip.MustParseAddr("fd96::2"), Proto: state.TCP}, Scheduler: "wrr", Backends: []lb.Backend{back("[fd01::3]:0", 1)}},
		{Key: lb.Key{VIP: netip.MustParseAddr("fd96::2"), Proto: state.UDP}, Scheduler: "wrr", Backends: []lb.Backend{back("[fd01::3]:0", 1)}},
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

// Rule L3: one mark per address and protocol, in each family, stable over a restart, freed at the end.
func TestMarks(t *testing.T) {
	k, h, d := setup(t)
	apply(t, d, lb.Diff(lb.NewTable(), sample(), lb.Policy{}))
	for _, a := range []netip.Addr{netip.MustParseAddr("10.96.0.2"), netip.MustParseAddr("fd96::2")} {
		for i, proto := range []state.Proto{state.TCP, state.UDP} {
			if h.marks[lb.Key{VIP: a, Proto: proto}] != pool.FirstMark+uint32(i) {
				t.Errorf("marks %v", h.marks)
			}
		}
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
	foreign := []genl.Service{
		{ID: genl.ID{Family: genl.IPv4, Proto: 6, Port: 80, Addr: netip.MustParseAddr("192.0.2.1")}, Scheduler: "rr"},
		{ID: genl.ByMark(genl.IPv4, 256), Scheduler: "rr"},
		{ID: genl.ByMark(genl.IPv6, 256), Scheduler: "rr", Netmask: 128},
	}
	for _, s := range foreign {
		if errs := k.Do([]genl.Request{{Command: genl.NewService, Service: s}}); errs != nil {
			t.Fatal(errs)
		}
	}
	before := k.names()
	apply(t, d, lb.Diff(lb.NewTable(), sample(), lb.Policy{}))
	got, err := d.Snapshot(t.Context())
	if err != nil || len(got.Services) != len(sample().Services) {
		t.Errorf("%d services of ours, %v", len(got.Services), err)
	}
	apply(t, d, []lb.Op{{Kind: lb.SetPool, Pool: lb.Pool{Prefix: pool4}}}) // removes leftovers, if it saw some
	left, err := d.Remnants(t.Context())
	if err != nil || len(left) != len(sample().Services) {
		t.Errorf("remnants %v, %v", left, err)
	}
	if err := d.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := k.names(); !slices.Equal(before, after) {
		t.Errorf("after teardown %v, want the foreign ones %v", after, before)
	}
	if left, err := d.Remnants(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("remnants after teardown: %v, %v", left, err)
	}
}

var web = lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: state.TCP}

// A kernel that is not as we think is corrected by its own answers.
func TestUnexpectedState(t *testing.T) {
	k, _, d := setup(t)
	table := sample()
	apply(t, d, lb.Diff(lb.NewTable(), table, lb.Policy{}))
	svc := table.Services[web]
	set := lb.Op{Kind: lb.SetBackend, Key: web, Backend: lb.Backend{Addr: svc.Backends[0].Addr, Weight: 3}}

	clear(k.services[idOf(web)].dests)
	apply(t, d, []lb.Op{set}) // update of a missing destination: ENOENT, then new
	clear(k.services)
	if errs := d.Apply(t.Context(), []lb.Op{set}); len(errs) != 1 || !errors.Is(errs[0], lb.ErrDrift) {
		t.Errorf("backend of a vanished service: %v, want drift", errs)
	}
	apply(t, d, []lb.Op{{Kind: lb.SetService, Key: web, Service: svc}, set})
	apply(t, d, []lb.Op{
		{Kind: lb.DelBackend, Key: web, Backend: set.Backend},
		{Kind: lb.DelBackend, Key: web, Backend: set.Backend},
		{Kind: lb.DelService, Key: web},
		{Kind: lb.DelService, Key: web},
	})
}

// A service that appeared after the table was read has unknown backends: it
// is set, and the table must be read again.
func TestServiceOfSomebodyElse(t *testing.T) {
	k, h, d := setup(t)
	ops := lb.Diff(lb.NewTable(), sample(), lb.Policy{})
	if _, err := d.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	apply(t, newFake(t, k, h), ops)
	drifts := 0
	for _, err := range d.Apply(t.Context(), ops) {
		if errors.Is(err, lb.ErrDrift) {
			drifts++
		} else if err != nil {
			t.Error(err)
		}
	}
	if drifts != len(sample().Services) {
		t.Errorf("%d of %d services reported", drifts, len(sample().Services))
	}
	got, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	apply(t, d, lb.Diff(got, sample(), lb.Policy{Drained: always}))
	apply(t, newFake(t, k, h), ops) // who has not read must not be told
}

// Answers that are lost do not change what the operations lead to.
func TestLostAnswers(t *testing.T) {
	for _, lose := range []int{1, 3, 7, 20} {
		k, h, d := setup(t)
		k.lose = lose
		apply(t, d, lb.Diff(lb.NewTable(), sample(), lb.Policy{}))
		got, err := newFake(t, k, h).Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ops := lb.Diff(got, sample(), lb.Policy{Drained: always}); len(ops) > 0 {
			t.Errorf("%d answers lost: differences %v", lose, ops)
		}
	}
	k, _, d := setup(t)
	k.lose = 1 << 30
	op := lb.Op{Kind: lb.SetService, Key: web, Service: sample().Services[web]}
	if errs := d.Apply(t.Context(), []lb.Op{op}); errs == nil || !errors.Is(errs[0], lb.ErrDrift) {
		t.Errorf("all answers lost: %v, want drift", errs)
	}
	if k.sent > maxRounds {
		t.Errorf("sent %d times", k.sent)
	}
	k.lose = 0
	if err := d.Setup(t.Context()); err != nil || k.closed != 1 {
		t.Errorf("setup: %v, closed %d times, want a new socket", err, k.closed)
	}
	apply(t, d, []lb.Op{op})
}

// Operations on one thing end as if they had been done one after the other,
// whatever was guessed.
func TestOrderKept(t *testing.T) {
	k, h, d := setup(t)
	svc := sample().Services[web]
	b := func(w uint32) lb.Backend { return lb.Backend{Addr: svc.Backends[0].Addr, Weight: w} }
	first := []lb.Op{{Kind: lb.SetService, Key: web, Service: svc}, {Kind: lb.SetBackend, Key: web, Backend: b(1)}}
	apply(t, d, first)
	other := newFake(t, k, h) // knows nothing, guesses wrong
	apply(t, other, []lb.Op{
		{Kind: lb.SetBackend, Key: web, Backend: b(2)},
		{Kind: lb.SetBackend, Key: web, Backend: b(3)},
		{Kind: lb.DelBackend, Key: web, Backend: b(0)},
	})
	if n := len(k.services[idOf(web)].dests); n != 0 {
		t.Errorf("%d backends after set, set, delete", n)
	}
	apply(t, d, []lb.Op{ // knows what is gone
		{Kind: lb.SetBackend, Key: web, Backend: b(4)},
		{Kind: lb.DelBackend, Key: web, Backend: b(0)},
		{Kind: lb.SetBackend, Key: web, Backend: b(5)},
	})
	if got := k.services[idOf(web)].dests[b(0).Addr]; got == nil || got.Weight != 5 {
		t.Errorf("%+v after set, delete, set; want weight 5", got)
	}
	apply(t, d, []lb.Op{{Kind: lb.DelService, Key: web}, first[0], first[1], {Kind: lb.DelService, Key: web}})
	if len(k.services) != 0 {
		t.Error(k.names())
	}
}

// A large load takes few system calls, and one change takes one.
func TestBatches(t *testing.T) {
	k, h, d := setup(t)
	table := lb.NewTable()
	table.Pools[pool4] = lb.Pool{Prefix: pool4}
	const services, backends = 1000, 10
	for i := range services {
		s := &lb.Service{
			Key:       lb.Key{VIP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Proto: state.TCP},
			Scheduler: "wrr",
		}
		if i%2 == 1 {
			s.Port = 80
		}
		for j := range backends {
			a := netip.AddrFrom4([4]byte{10, 1, byte(i), byte(j)})
			s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrPortFrom(a, s.Port), Weight: 1})
		}
		table.Services[s.Key] = s
	}
	k.calls = nil
	apply(t, d, lb.Diff(lb.NewTable(), table, lb.Policy{}))
	if want := services*(backends+1)/maxBatch + 1; len(k.calls) > want || h.writes > 2 {
		t.Errorf("%d calls and %d writes of marks, want at most %d and 2", len(k.calls), h.writes, want)
	}
	k.calls = nil
	one := table.Services[web]
	apply(t, d, []lb.Op{{Kind: lb.SetBackend, Key: web, Backend: lb.Backend{Addr: one.Backends[0].Addr, Weight: 9}}})
	if len(k.calls) != 1 {
		t.Errorf("calls %v for one change", k.calls)
	}
	for _, calls := range [][]string{{"table", "services"}, {"table"}} { // the first is compared
		k.calls = nil
		got, err := d.Snapshot(t.Context())
		if err != nil || len(got.Services) != services || !slices.Equal(k.calls, calls) {
			t.Errorf("%d services, %v, calls %v, want %v", len(got.Services), err, k.calls, calls)
		}
	}
}

// Kernels with one table for all namespaces leave services out of
// /proc/net/ip_vs when another namespace has some.
func TestTableLeavesServicesOut(t *testing.T) {
	k, h, d := setup(t)
	want := sample()
	apply(t, d, lb.Diff(lb.NewTable(), want, lb.Policy{}))
	k.hidden = map[genl.ID]bool{idOf(web): true, genl.ByMark(genl.IPv6, pool.FirstMark): true}
	for _, who := range []*Driver{d, newFake(t, k, h)} {
		for range 2 {
			got, err := who.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if found := lb.Compare(got, want); len(found) > 0 {
				t.Errorf("%v", found)
			}
		}
	}
	for i := range 2 * countedServices {
		s := &lb.Service{Key: web, Scheduler: "rr"}
		s.Port = uint16(1000 + i)
		apply(t, d, []lb.Op{{Kind: lb.SetService, Key: s.Key, Service: s}})
	}
	for _, skips := range []bool{true, false} {
		d.skips = skips
		usage, err := d.Usage(t.Context(), d.known.Keys())
		if err != nil || len(usage[web].Backends) != 2 {
			t.Errorf("skips %v: %+v, %v; a backend that is not told of seems to be idle", skips, usage[web], err)
		}
	}
}

// Marks that lost their address, and addresses that lost their service, go.
func TestLeftovers(t *testing.T) {
	k, h, d := setup(t)
	apply(t, d, lb.Diff(lb.NewTable(), sample(), lb.Policy{}))
	clear(h.marks) // as if somebody had flushed nftables while meshd was down
	h.marks[lb.Key{VIP: netip.MustParseAddr("10.96.0.77"), Proto: state.UDP}] = pool.FirstMark + 5
	again := newFake(t, k, h)
	got, err := again.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	apply(t, again, lb.Diff(got, sample(), lb.Policy{}))
	if len(k.services) != len(sample().Services) || len(h.marks) != 4 {
		t.Errorf("services %v, marks %v", k.names(), h.marks)
	}
	for of, m := range h.marks {
		if s := k.services[genl.ByMark(genl.FamilyOf(of.VIP), m)]; s == nil || len(s.dests) != 1 {
			t.Errorf("mark %#x of %s leads to %+v", m, of, s)
		}
	}
}
