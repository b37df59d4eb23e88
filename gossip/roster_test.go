package gossip

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"meshd/state"
)

// TestRoster: whatever happens to members, they are in order, and those whom the
// membership lists are counted.
func TestRoster(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c := NewCore(CoreConfig{Self: "self", Boot: 9, StopOfferingAfter: time.Second, Graves: time.Second}, rng,
		state.NewStore("self", 1, state.DefaultLimits(), new(counter)))
	now := time.Second
	for step := range 4000 {
		id := state.NodeID(fmt.Sprint("n", rng.IntN(40)))
		now += time.Duration(rng.IntN(int(200 * time.Millisecond)))
		switch rng.IntN(6) {
		case 0, 1:
			c.MemberAlive(now, id, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(rng.IntN(9))}), 7946))
		case 2:
			c.MemberDead(now, id)
		case 3:
			if m := c.roster.members[id]; m != nil {
				c.advance(now)
				c.goodbyes.accept(m)
				c.finishStep()
			}
		case 4:
			if m := c.roster.members[id]; m != nil {
				c.MemberReached(now, id, m.addr)
			}
		case 5:
			c.Tick(now)
			c.Drain()
		}
		listed := 0
		for _, m := range c.roster.members {
			if m.listed {
				listed++
			}
		}
		if c.roster.listed != listed || c.roster.ordered.Len() != len(c.roster.members) || wrongLists(c) != "" {
			t.Fatalf("step %d: %d of %d are listed, %d and %d are counted; %s", step, listed, len(c.roster.members),
				c.roster.listed, c.roster.ordered.Len(), wrongLists(c))
		}
	}
}

// TestNamesMakeNothingSlower: G19. The long dead, and names that were only
// heard of, count nowhere in a node's own times.
func TestNamesMakeNothingSlower(t *testing.T) {
	c := crowd(4, 0)
	c.cfg.Silence, c.cfg.Suspicion = 1800*time.Millisecond, 600*time.Millisecond
	was := c.liveness.checkDuration(c.roster.members["host0"])
	for i := range 3000 {
		c.liveness.ensureMember(state.NodeID(fmt.Sprint("made-up", i)))
	}
	talk(c, 4, time.Second, 5*time.Second)
	if got := c.liveness.checkDuration(c.roster.members["host0"]); got != was || c.roster.membershipSize() != 4 {
		t.Errorf("a check takes %v, %v before; the crowd is %d", got, was, c.roster.membershipSize())
	}
	for i := range 40 {
		c.MemberAlive(5*time.Second, memberName(4+i, 4), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 1, byte(i)}),
			7946))
	}
	for i := range 40 {
		c.MemberDead(6*time.Second, memberName(4+i, 4))
	}
	talk(c, 4, 6*time.Second, 10*time.Second)
	if got := c.roster.membershipSize(); got != 44 {
		t.Errorf("the membership still counts those whom it has just lost; the crowd is %d", got)
	}
	talk(c, 4, 10*time.Second, 45*time.Second)
	if got := c.roster.membershipSize(); got != 4 {
		t.Errorf("and then no more; the crowd is %d", got)
	}
}

// TestReapsAreBounded: G7. New lives of made-up owners without end leave a bounded
// number of things to do.
func TestReapsAreBounded(t *testing.T) {
	c := testCore(t, "a", "b")
	for i := range 3 * maxReaps {
		c.reaper.later(state.NodeID(fmt.Sprint("made-up", i)))
	}
	if len(c.reaper.due) > maxReaps || c.Stats.ReapsDropped == 0 {
		t.Errorf("%d wait, %d were dropped", len(c.reaper.due), c.Stats.ReapsDropped)
	}
}

// names returns the names in a list.
func names(of nodeList) (out []state.NodeID) {
	for i := range of.Len() {
		out = append(out, of.At(i))
	}
	return out
}

// wrongLists says which of a roster's lists is not what the members make it; "": none.
func wrongLists(c *Core) string {
	r := &c.roster
	var living, proven, retryable, unlooked []state.NodeID
	hosts, places := map[netip.AddrPort]int{}, map[netip.AddrPort]int{}
	r.hosts.forgetOld(c.now)
	for _, m := range r.ordered.all() {
		if m.reachable() {
			living = append(living, m.id)
			if m.proven {
				proven = append(proven, m.id)
			}
		}
		if m.retryable() {
			retryable = append(retryable, m.id)
		}
		if m.needsLook(c.now) && !m.lists.watched {
			unlooked = append(unlooked, m.id)
		}
		if m.proven && m.phase == phaseAlive {
			countAt(places, m.addr, 1)
		}
		if m.proven && m.phase != phaseLeft && (m.phase != phaseDead || c.now-m.since <= c.cfg.PreserveWindow) {
			countAt(hosts, m.hostAddr(), 1)
		}
	}
	switch {
	case !slices.Equal(names(r.living("")), living):
		return fmt.Sprintf("living: %v, not %v", names(r.living("")), living)
	case !slices.Equal(names(r.livingProven("")), proven):
		return fmt.Sprintf("proven: %v, not %v", names(r.livingProven("")), proven)
	case !slices.Equal(names(r.retryable), retryable):
		return fmt.Sprintf("retryable: %v, not %v", names(r.retryable), retryable)
	case len(unlooked) > 0:
		return fmt.Sprintf("not watched: %v", unlooked)
	case !maps.Equal(places, r.places):
		return fmt.Sprintf("places: %v, not %v", r.places, places)
	case !maps.Equal(hosts, r.hosts.at):
		return fmt.Sprintf("hosts: %v, not %v", r.hosts.at, hosts)
	}
	return ""
}
