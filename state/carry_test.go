package state

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// host is a node that hosts services in one network.
type host struct {
	store   *Store
	table   *Table
	carrier *Carrier
	clock   *testClock
}

type fleet struct {
	hosts []*host
	now   time.Duration
}

const (
	testGrace      = 10 * time.Second
	testQuarantine = time.Minute
)

func newFleet(def NetworkDef, names ...NodeID) *fleet {
	f := &fleet{}
	for i, n := range names {
		clock := testClock(i)
		s := NewStore(n, 1, DefaultLimits(), &clock)
		for _, o := range names {
			s.SetLiveness(o, Alive)
		}
		h := &host{store: s, table: s.Join("net"), carrier: NewCarrier(testGrace, testQuarantine), clock: &clock}
		h.table.Open()
		h.table.SetDef(def)
		f.hosts = append(f.hosts, h)
	}
	return f
}

func (f *fleet) run(service string, tasks int, on ...int) {
	for _, i := range on {
		f.hosts[i].carrier.Services[service] = &Hosting{Tasks: tasks}
	}
}

// carry lets each host look at its claims once and returns whether any changed.
func (f *fleet) carry(t testing.TB, hosts ...*host) (changed bool) {
	for _, h := range hosts {
		changes, _, _ := h.carrier.Carry(h.table, f.now)
		c, err := h.table.Commit(changes)
		if err != nil {
			t.Fatal(err)
		}
		changed = changed || c
		h.store.Publish(f.now)
	}
	return changed
}

func (f *fleet) exchange(t testing.TB, hosts ...*host) {
	for _, a := range hosts {
		for _, b := range hosts {
			for _, o := range a.table.Owners() {
				if o != b.store.Self() {
					pull(t, a.table, b.table, o, 1<<20)
				}
			}
		}
	}
	for _, h := range hosts {
		h.store.Publish(f.now)
	}
}

// settle exchanges and carries until nothing changes, with time standing still.
func (f *fleet) settle(t testing.TB, hosts ...*host) {
	t.Helper()
	for range 50 {
		f.exchange(t, hosts...)
		if !f.carry(t, hosts...) {
			return
		}
	}
	t.Fatal("V3: claims do not settle")
}

// later lets time pass, in steps, settling at each.
func (f *fleet) later(t testing.TB, d time.Duration) {
	for end := f.now + d; f.now < end; f.now += time.Second {
		f.settle(t, f.hosts...)
	}
}

func (f *fleet) vip(t testing.TB, service string) netip.Addr {
	t.Helper()
	var vip netip.Addr
	for i, h := range f.hosts {
		s := h.table.View().Service(service)
		if s == nil {
			t.Fatalf("%s does not know %q", h.store.Self(), service)
		}
		if i > 0 && s.VIP4 != vip {
			t.Fatalf("V3: %q is %s at %s, %s elsewhere", service, s.VIP4, h.store.Self(), vip)
		}
		vip = s.VIP4
	}
	return vip
}

// TestClaimsConverge: two halves claim on their own in a small pool and meet
// (V2, V3, V5): every service ends with one address of its own, everywhere.
func TestClaimsConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newFleet(pool28, "n1", "n2", "n3", "n4")
		services := rapid.IntRange(1, 13).Draw(rt, "services")
		for i := range services {
			for _, on := range rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 1, 4, rapid.ID).Draw(rt, "hosts") {
				f.run(fmt.Sprint("s", i), 1, on)
			}
		}
		half := rapid.IntRange(0, 4).Draw(rt, "half")
		f.settle(t, f.hosts[:half]...)
		f.settle(t, f.hosts[half:]...)
		f.later(t, 2*testGrace)
		seen := map[netip.Addr]bool{}
		for i := range services {
			name := fmt.Sprint("s", i)
			vip := f.vip(t, name)
			if !vip.IsValid() || seen[vip] {
				rt.Fatalf("V5, V7: %q has %s, seen %v", name, vip, seen)
			}
			seen[vip] = true
			for _, h := range f.hosts {
				if s := h.table.View().Service(name); len(s.OtherVIPs) > 0 {
					rt.Fatalf("V5: %q still moves after the grace: %v", name, s.OtherVIPs)
				}
			}
		}
	})
}

// TestMoveWithGrace: one service, two addresses after a partition: both are
// programmed for the grace, one is answered (V5).
func TestMoveWithGrace(t *testing.T) {
	f := newFleet(pool28, "n1", "n2")
	f.run("web", 1, 0, 1)
	other := VIPClaim{Service: "other", VIP4: probe4(&pool28, "web", 0), Birth: 1}
	commit(t, f.hosts[1].table, Change{Kind: KindVIP, Key: "other", Body: string(AppendVIPClaim(nil, other))})
	f.settle(t, f.hosts[0])
	f.settle(t, f.hosts[1]) // must take another address than n1
	commit(t, f.hosts[1].table, Change{Kind: KindVIP, Key: "other", Delete: true})
	f.settle(t, f.hosts...)
	vip := f.vip(t, "web")
	for _, h := range f.hosts {
		if s := h.table.View().Service("web"); len(s.OtherVIPs) != 1 || h.table.View().ByIP(s.OtherVIPs[0]).Service != s {
			t.Fatalf("V5: %s programs %v besides %s", h.store.Self(), s.OtherVIPs, vip)
		}
	}
	f.later(t, testGrace+2*time.Second)
	if s := f.hosts[0].table.View().Service("web"); f.vip(t, "web") != vip || len(s.OtherVIPs) != 0 {
		t.Fatalf("V5: after the grace %s %v", s.VIP4, s.OtherVIPs)
	}
}

// TestPinnedWins: a pin takes an address from an older claim, which moves; a
// newer pin of the same service replaces the first (V3, V5).
func TestPinnedWins(t *testing.T) {
	f := newFleet(pool28, "n1", "n2")
	f.run("old", 1, 0)
	f.settle(t, f.hosts...)
	wanted := f.vip(t, "old")
	f.hosts[1].carrier.Services["new"] = &Hosting{Tasks: 1, PinVIP: wanted}
	f.settle(t, f.hosts...)
	if f.vip(t, "new") != wanted || f.vip(t, "old") == wanted || !f.vip(t, "old").IsValid() {
		t.Fatalf("V3: new %s, old %s", f.vip(t, "new"), f.vip(t, "old"))
	}
	f.run("new", 1, 0)
	f.settle(t, f.hosts...)
	second := netip.MustParseAddr("10.9.0.14")
	if second == wanted || second == f.vip(t, "old") {
		t.Fatal("choose another address")
	}
	f.hosts[0].carrier.Services["new"].PinVIP = second
	f.settle(t, f.hosts...)
	if s := f.hosts[1].table.View().Service("new"); f.vip(t, "new") != second || !slices.Contains(s.OtherVIPs, wanted) {
		t.Fatalf("V5: %s besides %v", s.VIP4, s.OtherVIPs)
	}
	f.later(t, testGrace+2*time.Second)
	if s := f.hosts[1].table.View().Service("new"); f.vip(t, "new") != second || len(s.OtherVIPs) != 0 {
		t.Fatalf("V5: after the grace %s %v", s.VIP4, s.OtherVIPs)
	}
}

// TestReservation: without tasks a claim lasts until its time; then the address
// is free, for others after the quarantine (V2, V5).
func TestReservation(t *testing.T) {
	f := newFleet(pool28, "n1", "n2")
	f.run("web", 1, 0)
	f.settle(t, f.hosts...)
	vip := f.vip(t, "web")
	f.hosts[0].carrier.Services["web"] = &Hosting{Until: f.now + 20*time.Second}
	f.later(t, 10*time.Second)
	if f.vip(t, "web") != vip {
		t.Fatal("V2: the reservation does not hold")
	}
	f.later(t, 15*time.Second)
	for i, h := range f.hosts {
		if h.table.View().Service("web") != nil {
			t.Fatal("V2: the reservation does not end")
		}
		r := &carrying{Carrier: h.carrier, t: h.table, taken: map[netip.Addr]bool{}}
		if _, held := h.carrier.freed[vip]; !held {
			t.Fatalf("V5: host %d has not seen %s freed", i, vip)
		}
		for j := range 13 {
			if a, err := r.allocate(&pool28, fmt.Sprint("x", j)); err != nil || a == vip && j < 12 {
				t.Fatalf("V5: %s is given away in quarantine: %v", a, err)
			}
		}
	}
	f.run("web", 1, 1)
	f.settle(t, f.hosts...)
	if f.vip(t, "web") != vip {
		t.Fatalf("V5: the same service gets %s, had %s", f.vip(t, "web"), vip)
	}
}

// TestExhaustion is V7: explicit, no address for the late one, and one as soon
// as there is.
func TestExhaustion(t *testing.T) {
	def := pool28
	def.Subnet6 = netip.MustParsePrefix("fd00:96::/64")
	for _, d := range []NetworkDef{pool28, def} {
		f := newFleet(d, "n1", "n2")
		for i := range 15 {
			f.run(fmt.Sprintf("s%02d", i), 1, 0)
		}
		f.settle(t, f.hosts...)
		_, again, ex := f.hosts[0].carrier.Carry(f.hosts[0].table, f.now)
		if len(ex) != 1 || again == 0 {
			t.Fatalf("V7: exhausted %v, again %v", ex, again)
		}
		for s, err := range ex {
			v := f.hosts[1].table.View().Service(s)
			if !errors.Is(err, ErrExhausted) || v != nil && (v.VIP4.IsValid() || v.Conflict == "") || v == nil &&
				d.Subnet6.IsValid() {
				t.Fatalf("V7: %v %+v", err, v)
			}
			f.hosts[0].carrier.Services["s00"] = &Hosting{}
			if s == "s00" {
				f.hosts[0].carrier.Services["s01"] = &Hosting{}
			}
			f.settle(t, f.hosts...)
			if !f.vip(t, s).IsValid() {
				t.Fatalf("V7: %q does not take the freed address", s)
			}
		}
	}
}

// TestDeadClaimsBlock: the claims of a dead owner keep their addresses (V1, S9).
func TestDeadClaimsBlock(t *testing.T) {
	f := newFleet(pool28, "n1", "n2")
	f.run("web", 1, 0)
	f.settle(t, f.hosts...)
	vip := f.vip(t, "web")
	f.hosts[1].store.SetLiveness("n1", Dead)
	for i := range 12 {
		f.run(fmt.Sprint("x", i), 1, 1)
	}
	f.settle(t, f.hosts[1])
	v := f.hosts[1].table.View()
	if s := v.Service("web"); s == nil || s.VIP4 != vip || v.ByIP(vip).Service != s {
		t.Fatalf("R4: %+v", s)
	}
}

// TestSettingsByLamport: the last word wins everywhere, and a node that was
// asked for nothing says nothing (S8).
func TestSettingsByLamport(t *testing.T) {
	f := newFleet(pool28, "n1", "n2", "n3")
	f.run("web", 1, 0, 1, 2)
	f.hosts[0].carrier.Services["web"].Settings = &Settings{Mode: ModeDNSRR, Scheduler: "wlc"}
	f.settle(t, f.hosts...)
	late := newFleet(pool28, "n4").hosts[0] // has a clock far ahead and knows nothing
	*late.clock = 1000
	late.carrier.Services["web"] = &Hosting{Tasks: 1}
	f.carry(t, late)
	late.store.SetLiveness("n1", Alive)
	f.hosts = append(f.hosts, late)
	f.settle(t, f.hosts...)
	for _, h := range f.hosts {
		if s := h.table.View().Service("web"); s.Mode != ModeDNSRR || s.Scheduler != "wlc" || s.VIP4.IsValid() {
			t.Fatalf("S8: %s has %+v", h.store.Self(), s.Settings)
		}
	}
	f.hosts[3].carrier.Services["web"].Settings = &Settings{Drain: time.Second, TTL: 2 * time.Second}
	f.settle(t, f.hosts...)
	for _, h := range f.hosts {
		if s := h.table.View().Service("web"); s.Settings != (Settings{Drain: time.Second, TTL: 2 * time.Second}) ||
			!s.VIP4.IsValid() {
			t.Fatalf("S8: %s has %+v", h.store.Self(), s)
		}
	}
	for _, h := range f.hosts[:3] { // the first to speak may go: the others carry it
		h.carrier.Services["web"] = &Hosting{}
	}
	f.settle(t, f.hosts...)
	if s := f.hosts[0].table.View().Service("web"); s.Drain != time.Second {
		t.Fatalf("V2: %+v", s.Settings)
	}
}
