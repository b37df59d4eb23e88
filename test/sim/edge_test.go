package sim

import (
	"fmt"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// The edge cases of replication that were somebody's real bug, one test each.

// stage is a settled mesh with a checker.
type stage struct {
	*World
	t     *testing.T
	check *Checker
}

func newStage(t *testing.T, nodes int, change ...func(o *Options)) *stage {
	t.Helper()
	s := &stage{t: t, check: NewChecker()}
	o := Options{Seed: 7, Nodes: nodes, OnStep: s.check.Step}
	for _, f := range change {
		f(&o)
	}
	s.World = New(o)
	s.check.Watch(s.World)
	s.Start(time.Millisecond)
	s.Run(40 * time.Second) // holes of the membership are filled
	return s
}

func (s *stage) state(n int, cs ...state.Change) {
	s.t.Helper()
	if err := s.Node(n).Commit(cs...); err != nil {
		s.t.Fatal(err)
	}
}

// equal fails unless all tables are equal within d.
func (s *stage) equal(d time.Duration) {
	s.t.Helper()
	if _, ok := s.Until(s.Equal, time.Millisecond, d); !ok {
		s.t.Fatalf("not equal after %v: %s", d, s.check.Difference(s.opt.Network))
	}
}

// done checks everything at the end.
func (s *stage) done() {
	s.t.Helper()
	s.Run(8 * time.Second) // memberships settle
	s.check.Final()
	for _, v := range s.check.Violations {
		s.t.Error(v)
	}
}

func limited(f func(l *state.Limits)) func(*Options) {
	return func(o *Options) { o.Limits = state.DefaultLimits(); f(&o.Limits) }
}

func core(f func(c *gossip.CoreConfig)) func(*Options) { return func(o *Options) { f(&o.Core) } }

// away cuts a node off, does something, and heals.
func (s *stage) away(n int, f func()) {
	s.Partition(func(i int) int {
		if i == n {
			return 1
		}
		return 0
	})
	f()
	s.Run(10 * time.Second)
	s.Heal()
}

func many(n *Node, k, serial int) (cs []state.Change) {
	for i := range k {
		cs = append(cs, Endpoint(TaskID(n, i), fmt.Sprintf("s%d", i%7), serial+i))
	}
	return cs
}

func removeMany(n *Node, k int) (cs []state.Change) {
	for i := range k {
		cs = append(cs, Remove(TaskID(n, i)))
	}
	return cs
}

func TestEdge01FloorAtTheVersionOfAReplica(t *testing.T) {
	for removed := 1; removed <= 6; removed++ {
		s := newStage(t, 3, limited(func(l *state.Limits) { l.Tombstones = 3 }))
		s.state(0, many(s.Node(0), 8, 0)...)
		s.equal(time.Second)
		s.away(2, func() { s.state(0, removeMany(s.Node(0), removed)...) })
		s.equal(5 * time.Second)
		s.done()
	}
}

func TestEdge02SnapshotInChunks(t *testing.T) {
	s := newStage(t, 4, core(func(c *gossip.CoreConfig) { c.Chunk = 4 << 10 }),
		limited(func(l *state.Limits) { l.Tombstones = 4 }))
	s.state(0, many(s.Node(0), 600, 0)...)
	s.equal(3 * time.Second)
	s.away(3, func() { s.state(0, removeMany(s.Node(0), 300)...) })
	s.equal(8 * time.Second)
	s.done()
}

func TestEdge03EmptyDigestAgainstLargeState(t *testing.T) {
	s := newStage(t, 4)
	s.Node(3).Crash(false)
	s.Run(20 * time.Second)
	for i := range 3 {
		s.state(i, many(s.Node(i), 5000, i)...)
	}
	s.Run(5 * time.Second)
	s.Node(3).Start()
	s.equal(3 * time.Second)
	s.done()
}

func TestEdge04DuplicatedAndReorderedDeltas(t *testing.T) {
	s := newStage(t, 5)
	s.SetLinks(Link{Base: time.Millisecond, Jitter: time.Millisecond, Dup: 1, Reorder: .5, Hold: 200 * time.Millisecond})
	for k := range 100 {
		s.state(k%5, Endpoint(fmt.Sprintf("x%d-a", k%9), "web", k), Endpoint(fmt.Sprintf("x%d-b", k%9), "web", k))
		s.Run(10 * time.Millisecond)
	}
	s.equal(5 * time.Second)
	s.done()
}

func TestEdge05DeleteAndCreateAgainWhileCut(t *testing.T) {
	for _, keep := range []int{512, 2} { // tombstones still there, and forgotten
		s := newStage(t, 3, limited(func(l *state.Limits) { l.Tombstones = keep }))
		n := s.Node(0)
		s.state(0, many(n, 10, 0)...)
		s.equal(time.Second)
		s.away(2, func() {
			s.state(0, removeMany(n, 10)...)
			s.state(0, many(n, 3, 900)...)
		})
		s.equal(5 * time.Second)
		s.done()
	}
}

func TestEdge06BackAfterTombstonesAreForgotten(t *testing.T) {
	s := newStage(t, 4, core(func(c *gossip.CoreConfig) { c.TombstoneAge = 5 * time.Second }))
	s.state(0, many(s.Node(0), 20, 0)...)
	s.equal(time.Second)
	s.away(3, func() {
		s.state(0, removeMany(s.Node(0), 15)...)
		s.Run(30 * time.Second)
	})
	s.equal(8 * time.Second)
	s.done()
}

func aging(c *gossip.CoreConfig) {
	c.StopOfferingAfter, c.DropAfter, c.Graves = 20*time.Second, 40*time.Second, time.Hour
}

func TestEdge07DeadRemovedAtDifferentTimes(t *testing.T) {
	s := newStage(t, 6, core(aging))
	s.state(0, many(s.Node(0), 5, 0)...)
	s.equal(time.Second)
	s.Node(0).Crash(true)
	for i := 1; i < 6; i++ { // every node is at another age of it
		s.Run(8 * time.Second)
		s.Node(i).Jump(3 * time.Second)
	}
	s.Node(5).Crash(false)
	s.Run(4 * time.Second)
	s.Node(5).Start() // learns of the dead from those who still offer it
	s.Run(2 * time.Minute)
	for i := 1; i < 6; i++ {
		if _, ok := s.Node(i).Table("net").Head("n0000"); ok {
			t.Errorf("S9: n%04d still has the stream of a node that is dead for long", i)
		}
	}
	s.Node(0).Start()
	s.equal(10 * time.Second)
	s.Run(10 * time.Second)
	s.done()
}

func TestEdge08LostDiskOldDiskClone(t *testing.T) {
	t.Run("lost", func(t *testing.T) {
		s := newStage(t, 5)
		s.state(0, many(s.Node(0), 9, 0)...)
		s.equal(time.Second)
		s.Node(0).Crash(false)
		s.Run(300 * time.Millisecond)
		s.Node(0).Start()
		s.state(0, Endpoint("new", "web", 1))
		s.equal(3 * time.Second)
		s.Run(12 * time.Second)
		s.done()
	})
	t.Run("old", func(t *testing.T) {
		s := newStage(t, 5)
		s.state(0, many(s.Node(0), 9, 0)...)
		old := s.Node(0).disk.clone()
		s.Node(0).Crash(true)
		s.Node(0).Start()
		s.state(0, many(s.Node(0), 4, 50)...)
		s.equal(3 * time.Second)
		s.Node(0).Crash(true)
		s.Node(0).disk = old
		s.Node(0).Start()
		s.equal(3 * time.Second)
		s.done()
	})
	t.Run("clone", cloned)
}

// cloned: two live nodes of one name. The one that started first keeps it; the
// other yields, both say so, and nobody flaps (S7).
func cloned(t *testing.T) {
	told := map[int32]string{}
	s := newStage(t, 5, func(o *Options) {
		o.OnEvent = func(n *Node, e gossip.Event) {
			if e.Kind == gossip.EventDuplicate {
				told[n.index] = e.Reason
			}
		}
	})
	s.state(0, many(s.Node(0), 5, 0)...)
	s.equal(time.Second)
	twin := s.add("n0000")
	twin.Start()
	twin.Do(func(now time.Duration, c *gossip.Core) {
		for i := 1; i < 5; i++ {
			c.MemberAlive(now, s.Node(i).ID, s.Node(i).Addr)
		}
	})
	for i := 1; i < 5; i++ { // memberlist reports the conflict at others; the host asks both
		s.Run(100 * time.Millisecond)
	}
	s.Node(0).Do(func(now time.Duration, c *gossip.Core) { c.Conflict(now, twin.ID, twin.Addr) })
	twin.Do(func(now time.Duration, c *gossip.Core) { c.Conflict(now, s.Node(0).ID, s.Node(0).Addr) })
	s.Run(5 * time.Second)
	if told[0] == "" || told[twin.index] == "" || !twin.Core.Yielded() || s.Node(0).Core.Yielded() {
		t.Errorf("S7: told %q, yielded %v and %v", told, s.Node(0).Core.Yielded(), twin.Core.Yielded())
	}
	inc := s.Node(0).Store().Incarnation()
	s.Run(30 * time.Second)
	if now := s.Node(0).Store().Incarnation(); now > inc+1 {
		t.Errorf("S7: the two outbid each other: incarnation %d, then %d", inc, now)
	}
	for i := 1; i < 5; i++ {
		if got := len(s.Node(i).Table("net").OwnerEntries("n0000", state.KindEndpoint)); got != 5 {
			t.Errorf("S7: n%04d has %d of 5 entries of the first", i, got)
		}
	}
}

func TestEdge09PausedPastD1AndD2(t *testing.T) {
	for _, d := range []time.Duration{30 * time.Second, 90 * time.Second} {
		s := newStage(t, 5, core(aging))
		s.state(0, many(s.Node(0), 5, 0)...)
		s.equal(time.Second)
		s.Node(0).Pause()
		s.Run(d)
		s.Node(0).Resume()
		s.equal(5 * time.Second)
		s.Run(8 * time.Second)
		s.done()
	}
}

func TestEdge10RestartOfAll(t *testing.T) {
	s := newStage(t, 20)
	for i := range 20 {
		s.state(i, many(s.Node(i), 10, i)...)
	}
	s.equal(time.Second)
	for _, n := range s.Nodes() {
		n.Crash(true)
	}
	s.Run(time.Second)
	s.Start(0)
	s.equal(2 * time.Second)
	s.Run(40 * time.Second)
	s.done()
}

func TestEdge11LargeStateDoesNotStarveSmallOwners(t *testing.T) {
	s := newStage(t, 6)
	for i := 1; i < 5; i++ {
		s.state(i, many(s.Node(i), 8000, i)...)
	}
	s.state(5, Endpoint("small", "tiny", 1))
	s.Run(5 * time.Second)
	n := s.Node(0)
	n.Crash(false)
	s.Run(20 * time.Second)
	n.Start()
	if n.Table("net").View().Synced() {
		t.Error("R4: ready before the first exchange")
	}
	d, ok := s.Until(func() bool { return n.Table("net").View().Service("tiny") != nil }, time.Millisecond, 5*time.Second)
	if !ok || d > time.Second {
		t.Errorf("the small owner took %v (%v)", d, ok)
	}
	s.equal(5 * time.Second)
	s.Run(3 * time.Second)
	if !n.Table("net").View().Synced() {
		t.Error("R4: not ready after it")
	}
	s.done()
}

func TestEdge12JoinANetworkAndWriteAtOnce(t *testing.T) {
	s := newStage(t, 8)
	for i := range 8 {
		s.Node(i).Take("blue", true)
		if err := s.Node(i).CommitIn("blue", Endpoint(TaskID(s.Node(i), 1), "web", i)); err != nil {
			t.Fatal(err)
		}
	}
	blue := func() bool { return s.check.Difference("blue") == "" && s.Node(0).Table("blue").Len() >= 8 }
	if d, ok := s.Until(blue, time.Millisecond, 2*time.Second); !ok {
		t.Errorf("not equal after %v: %s", d, s.check.Difference("blue"))
	}
	s.done()
}
