package gossip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// TestManyGoodbyes: S9, G13. Goodbyes that somebody makes up, of names that were
// made up as well, cost few packets, and keep nobody from being asked whether it
// leaves.
func TestManyGoodbyes(t *testing.T) {
	for _, proven := range []bool{false, true} {
		c := crowd(5, 0)
		c.Tick(30 * time.Second)
		c.Drain()
		const names = 4000
		for i := range names {
			m := c.member(state.NodeID(fmt.Sprintf("name%d", i)))
			c.put(m, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}), 7946))
			m.proven = proven
			c.sign(m, signParting)
		}
		if sends, _ := c.Drain(); len(sends) > maxPartings || len(c.partings) > maxPartings {
			t.Errorf("proven %v: %d packets for as many goodbyes, and %d are asked about", proven, len(sends), len(c.partings))
		}
		if proven {
			if n := c.Stats.GoodbyesDropped; n != names-maxPartings {
				t.Errorf("%d goodbyes are counted as dropped", n)
			}
			continue
		}
		c.sign(c.members["host0"], signParting)
		if c.partings["host0"] == nil {
			t.Error("names that were made up keep a node from being asked whether it leaves")
		}
	}
}
