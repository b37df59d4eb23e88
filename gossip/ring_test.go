package gossip

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"meshd/state"
)

// TestRingLeavesNoneOut: G3. In each turn every participant is told by exactly one
// other, whoever the participants are; a node that does not know itself for one, as
// in the global scope, counts as one.
func TestRingLeavesNoneOut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var all []state.NodeID
		for i := range rapid.IntRange(1, 40).Draw(rt, "nodes") {
			all = append(all, state.NodeID(fmt.Sprintf("n%02d", i)))
		}
		turn := rapid.IntRange(0, hintTurns-1).Draw(rt, "turn")
		listed := rapid.Bool().Draw(rt, "selfListed")
		told := map[state.NodeID]int{}
		for i, self := range all {
			r := &roster{env: &env{cfg: CoreConfig{Self: self}}}
			from := all
			if !listed {
				from = append(append([]state.NodeID{}, all[:i]...), all[i+1:]...)
			}
			to, ok := r.ringPeer(staticNodes(from), turn)
			if ok != (len(all) > 1) || to == self {
				rt.Fatalf("%s of %d tells %q, %v", self, len(all), to, ok)
			}
			told[to]++
		}
		for _, id := range all {
			if len(all) > 1 && told[id] != 1 {
				rt.Fatalf("%s of %d is told by %d others in turn %d", id, len(all), told[id], turn)
			}
		}
	})
}

// Each of the turns tells another member, and news that comes while the last one is
// under way has its own.
func TestHintTurns(t *testing.T) {
	g := newGround()
	for i := range 12 {
		g.addMember(state.NodeID(fmt.Sprintf("z%02d", i)))
	}
	p, n := pushOn(g), g.nets.byName[""]
	g.write(t, "net")
	p.pushOwn(n)
	p.flush()
	g.sent(t)
	told := map[state.NodeID]bool{}
	for range hintTurns {
		g.now = p.hotTimes[0]
		if len(p.hotTimes) == 1 {
			p.recordNews(n, "z00")
		}
		p.sendHot()
		_, to := g.sent(t)
		if len(to) != 1 {
			t.Fatalf("one turn tells %v", to)
		}
		told[to[0]] = true
	}
	if !told["z00"] || len(told) != hintTurns {
		t.Errorf("told: %v; the successor of self is z00", told)
	}
	if len(p.hotTimes) != hintTurns {
		t.Fatalf("news of just now has %d turns", len(p.hotTimes))
	}
	for range hintTurns {
		g.now = p.hotTimes[0]
		p.sendHot()
	}
	if g.now += time.Second; len(p.hotTimes) != 0 {
		t.Errorf("and then no more: %v", p.hotTimes)
	}
}

// A pull whose answer is late is asked of the next peer that has the stream, once.
func TestPullAsksASecondPeer(t *testing.T) {
	g := newGround()
	n := g.nets.byName[""]
	ask := lack{Want: state.Want{Owner: "o"}, small: true}
	asked := func(u *pull, from state.NodeID) int {
		u.request(from, n, []lack{ask})
		types, _ := g.sent(t)
		return len(types)
	}
	u := newPull(g.env, g.outbox, g.nets)
	if asked(&u, "a") != 1 || asked(&u, "b") != 0 {
		t.Fatal("a second peer is asked though the first has had no time to answer")
	}
	g.now += soonLost
	if asked(&u, "a") != 0 || asked(&u, "c") != 1 || u.perPeer["a"] != 0 || u.perPeer["c"] != 1 {
		t.Fatalf("the second peer is not asked: %v", u.perPeer)
	}
	g.now += soonLost
	if asked(&u, "d") != 0 {
		t.Error("a third one is")
	}
	many := newPull(g.env, g.outbox, g.nets)
	for i := range fewPulls {
		many.request("a", n, []lack{{Want: state.Want{Owner: state.NodeID(fmt.Sprint("o", i))}, small: true}})
	}
	asked(&many, "a")
	g.now += soonLost
	if asked(&many, "b") != 0 {
		t.Error("a node that lacks much asks for it twice")
	}
}

// How long pulls take is measured from the first answer on.
func TestPullMeasures(t *testing.T) {
	g := newGround()
	u := newPull(g.env, g.outbox, g.nets)
	key := streamKey{"", "o"}
	for _, want := range []time.Duration{time.Millisecond, 2 * time.Millisecond} {
		u.request("a", g.nets.byName[""], []lack{{Want: state.Want{Owner: "o"}, small: true}})
		g.now += 8*want - 7*time.Millisecond
		if u.answered(key, "a"); u.rtt != want {
			t.Errorf("pulls take %v, not %v", u.rtt, want)
		}
	}
}
