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
			m := c.liveness.ensureMember(state.NodeID(fmt.Sprintf("name%d", i)))
			c.liveness.setAddr(m, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}), 7946))
			m.proven = proven
			c.liveness.observe(m, signGoodbyeHeard)
		}
		if sends, _ := c.Drain(); len(sends) > maxGoodbyeChecks || len(c.goodbyes.checks) > maxGoodbyeChecks {
			t.Errorf("proven %v: %d packets for as many goodbyes, and %d are asked about",
				proven, len(sends), len(c.goodbyes.checks))
		}
		if proven {
			if n := c.Stats.GoodbyesDropped; n != names-maxGoodbyeChecks {
				t.Errorf("%d goodbyes are counted as dropped", n)
			}
			continue
		}
		c.liveness.observe(c.roster.members["host0"], signGoodbyeHeard)
		if c.goodbyes.checks["host0"] == nil {
			t.Error("names that were made up keep a node from being asked whether it leaves")
		}
	}
}

// TestGoodbyeOfAFormerLife: S9. A node that leaves and starts again at once is not
// taken as gone because nobody answers for its goodbye any more: its new life is
// heard of, its stream goes on, or the membership has told both.
func TestGoodbyeOfAFormerLife(t *testing.T) {
	for name, returns := range map[string]func(c *Core, now time.Duration){
		"its packet": func(c *Core, now time.Duration) { c.Receive(now, newEncoder("b", 2).b) },
		"its stream": func(c *Core, now time.Duration) { c.Receive(now, returnOf(c, "b")) },
		"the membership": func(c *Core, now time.Duration) {
			c.goodbyes.accept(c.roster.members["b"])
			c.MemberAlive(now, "b", c.roster.members["b"].addr)
		},
	} {
		a, b := testCore(t, "a", "b"), testCore(t, "b", "a")
		exchange(a, b)
		now := 30 * time.Second
		a.Receive(now, goodbyeOf(a, "b"))
		returns(a, now+a.cfg.VerifyFor/2)
		waitFor(a, now+a.cfg.VerifyFor/2, now+2*a.cfg.VerifyFor)
		if l := a.store.Liveness("b"); l != state.Alive {
			t.Errorf("%s told that b is back: it is %v", name, l)
		}
	}
}

// TestLeftIsLookedFor: S9. What a node wrote after its goodbye shows that it is
// back, even if the goodbye has taken effect, and its packets count as the tail of
// that.
func TestLeftIsLookedFor(t *testing.T) {
	a, b := testCore(t, "a", "b"), testCore(t, "b", "a")
	exchange(a, b)
	now := 30 * time.Second
	a.Receive(now, goodbyeOf(a, "b"))
	now = waitFor(a, now, now+2*a.cfg.VerifyFor)
	if p := a.roster.members["b"].phase; p != phaseLeft {
		t.Fatalf("b, which does not answer for its goodbye, is in phase %d", p)
	}
	a.Receive(now, returnOf(a, "b"))
	a.Receive(now, newEncoder("b", 1).b)
	if l := a.store.Liveness("b"); l != state.Alive {
		t.Fatalf("b, which writes and speaks, is %v", l)
	}
}

// returnOf is a packet of another with the stream of a node's next life.
func returnOf(c *Core, id state.NodeID) []byte {
	h, _ := c.store.Global().Head(id)
	next := state.NewStore(id, h.Inc+1, state.DefaultLimits(), new(counter))
	_, err := next.Global().Commit([]state.Change{{Kind: state.KindMember, Key: "net"}})
	if err != nil {
		panic(err)
	}
	e := newEncoder("evil", 9)
	e.open(framePush)
	e.byte(0)
	e.delta(next.Global().Delta(state.Want{Owner: id}, 1<<20))
	e.close()
	return e.b
}

// waitFor lets the time pass for a core to which nobody speaks.
func waitFor(c *Core, now, end time.Duration) time.Duration {
	for ; now <= end; now += 10 * time.Millisecond {
		c.Tick(now)
		c.Drain()
	}
	return now
}

// goodbyeOf is a packet of evil with a last, empty snapshot of another.
func goodbyeOf(c *Core, id state.NodeID) []byte {
	h, _ := c.store.Global().Head(id)
	e := newEncoder("evil", 9)
	e.open(framePush)
	e.byte(0)
	e.delta(&state.Delta{Owner: id, Inc: h.Inc + 1, To: 5, Upto: 5, Floor: 5, Snapshot: true})
	e.close()
	return e.b
}

// TestHostileGoodbye: S9. A last, empty snapshot that somebody else made up hides
// nobody who says that it stays, however often it is repeated.
func TestHostileGoodbye(t *testing.T) {
	a, b := testCore(t, "a", "b"), testCore(t, "b", "a")
	exchange(a, b)
	now := 30 * time.Second
	for range 5 {
		a.Receive(now, goodbyeOf(a, "b"))
		pass(a, b, now, now+2*time.Second, func(now time.Duration) {
			if l := a.store.Liveness("b"); l != state.Alive {
				t.Fatalf("%v: b is %v", now, l)
			}
		})
		now += 2 * time.Second
	}
	if m := a.Members()[0]; m.State != "alive" || !m.Listed {
		t.Fatalf("after a goodbye that was not its own: %+v", m)
	}
	if n := a.store.Table("net").View().Service("web").Balanced().Len(); n != 2 {
		t.Fatalf("%d tasks are served", n)
	}
	if n := a.Stats.FalseGoodbyes; n == 0 || n > 5 {
		t.Errorf("%d false goodbyes are counted", n)
	}
}

// TestGoodbyeOfOneThatIsSilent: S9. Nobody answers for a goodbye: it is believed
// as soon as a report of the death would be, and a packet long after it tells
// that it was not true.
func TestGoodbyeOfOneThatIsSilent(t *testing.T) {
	a, b := testCore(t, "a", "b"), testCore(t, "b", "a")
	exchange(a, b)
	now := 30 * time.Second
	a.Receive(now, goodbyeOf(a, "b"))
	for end := now + a.cfg.VerifyFor; now <= end; now += 10 * time.Millisecond {
		a.Tick(now)
		a.Drain()
	}
	if l := a.store.Liveness("b"); l != state.Dead || a.roster.members["b"].phase != phaseLeft {
		t.Fatalf("%v after its goodbye b is %v", a.cfg.VerifyFor, l)
	}
	a.Receive(now, newEncoder("b", 1).b)
	if l := a.store.Liveness("b"); l != state.Dead {
		t.Fatalf("S9: the tail of its goodbye makes b %v", l)
	}
	a.Receive(now+goodbyeTail, newEncoder("b", 1).b)
	if l := a.store.Liveness("b"); l != state.Alive {
		t.Fatalf("G11: b, which speaks, is %v", l)
	}
}

// TestGoodbyeIsTakenAtOnce: S9. One that leaves says so when it is asked: its
// goodbye takes effect in one exchange.
func TestGoodbyeIsTakenAtOnce(t *testing.T) {
	a, b := testCore(t, "a", "b"), testCore(t, "b", "a")
	exchange(a, b)
	now := 30 * time.Second
	b.Leave(now)
	pass(b, a, now, now+30*time.Millisecond, func(time.Duration) {})
	if m := a.Members()[0]; m.State != "left" {
		t.Fatalf("after its goodbye b is %s", m.State)
	}
	pass(b, a, now+30*time.Millisecond, now+3*time.Second, func(now time.Duration) {
		if m := a.Members()[0]; m.State != "left" {
			t.Fatalf("%v: after its goodbye b is %s", now, m.State)
		}
	})
}
