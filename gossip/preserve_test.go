package gossip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// TestManyThatVanishCostWhatFewDo: S12. Whoever has thousands of names answer and
// ends them at once must not have each of them compared with all others.
func TestManyThatVanishCostWhatFewDo(t *testing.T) {
	c := crowd(5, 0)
	c.Tick(time.Second)
	gone := func(i int) *member {
		m := c.liveness.ensureMember(state.NodeID(fmt.Sprintf("gone%d", i)))
		c.liveness.setAddr(m, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 7946))
		m.proven = true
		return m
	}
	const many = 4096
	for i := range many {
		c.liveness.endCheck(gone(i))
	}
	last := gone(many)
	if n := testing.AllocsPerRun(100, func() { c.liveness.endCheck(last) }); n > 2 {
		t.Errorf("S12: judging one that vanished, after %d others, takes %v allocations", many, n)
	}
	if n := c.liveness.preserve.hosts(); n != many+1 {
		t.Errorf("S12: they vanished from %d hosts, not %d", n, many+1)
	}
	c.Tick(time.Second + c.cfg.PreserveWindow + 1)
	c.liveness.endCheck(last)
	if n := c.liveness.preserve.hosts(); n != 1 {
		t.Errorf("S12: after the window, they vanished from %d hosts, not one", n)
	}
}
