package state

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// TestProvisionalClaimsMoveNothing: V11. A host that never met anybody claims at
// a low Lamport time, restarts or not, and meets an established mesh: whatever
// it claimed, the mesh's services stay where they are, its own get addresses too,
// and nothing stays provisional.
func TestProvisionalClaimsMoveNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newFleet(pool28, "n1", "n2", "fresh")
		old, fresh := f.hosts[:2], f.hosts[2]
		for _, h := range old {
			h.clock.Witness(1000)
		}
		var olds []string
		for i := range rapid.IntRange(1, 6).Draw(rt, "old services") {
			olds = append(olds, fmt.Sprint("s", i))
			f.run(olds[i], 1, rapid.IntRange(0, 1).Draw(rt, "host"))
		}
		f.settle(t, old...)
		before := map[string]netip.Addr{}
		for _, s := range olds {
			before[s] = old[0].table.View().Service(s).VIP4
		}
		fresh.carrier.Provisional = true
		for i := range rapid.IntRange(1, 7).Draw(rt, "new services") { // some of the same name
			f.run(fmt.Sprint("s", i+rapid.IntRange(0, 6).Draw(rt, "name")), 1, 2)
		}
		f.settle(t, fresh)
		if rapid.Bool().Draw(rt, "restart") {
			said := fresh.table.Own(KindVIP)
			clock := new(testClock)
			s := NewStore("fresh", 2, DefaultLimits(), clock)
			services := fresh.carrier.Services
			*fresh = host{store: s, table: s.Join("net"), carrier: NewCarrier(testGrace, testQuarantine), clock: clock}
			fresh.table.Open()
			fresh.table.SetDef(pool28)
			for _, id := range []NodeID{"n1", "n2", "fresh"} {
				s.SetLiveness(id, Alive)
			}
			for _, e := range said { // from disk
				commit(t, fresh.table, Change{Kind: KindVIP, Key: e.Key(), Body: e.Body()})
			}
			fresh.carrier.Services, fresh.carrier.Provisional = services, true
			f.settle(t, fresh)
		}
		stay := func(when string) {
			for s, a := range before {
				for _, h := range f.hosts {
					if got := h.table.View().Service(s); got == nil || got.VIP4 != a {
						rt.Fatalf("V11: %s: %s was at %v, is %+v at %s", when, s, a, got, h.store.Self())
					}
				}
			}
		}
		f.exchange(t, f.hosts...)
		stay("when they meet")
		if rapid.Bool().Draw(rt, "carried before it is settled") {
			f.settle(t, f.hosts...)
			stay("while it is provisional")
		}
		fresh.carrier.Provisional = false
		f.later(t, 2*testGrace)
		stay("at the end")
		for _, h := range f.hosts {
			for _, e := range h.table.Own(KindVIP) {
				if c, _ := ParseVIPClaim(e.Key(), e.Body()); c.Provisional {
					rt.Fatalf("V11: %s still states %+v", h.store.Self(), c)
				}
			}
		}
	})
}
