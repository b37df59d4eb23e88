package gossip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// TestJoinerAnnounces: G2. Of a node that answered a nonce memberlist is told; it is dialled
// only if it is not listed then.
func TestJoinerAnnounces(t *testing.T) {
	j := testJoiner(nil)
	var messages []string
	room := true
	j.inject = func(b []byte) bool {
		if room {
			messages = append(messages, string(b))
		}
		return room
	}
	j.requestListed("listed", addr(1))
	j.requestListed("refused", addr(2))
	if got := dialled(j, time.Now()); len(got) > 0 {
		t.Fatalf("dials %v before it told of them", got)
	}
	room = false
	if again := j.announceAnswered(); again != announceInterval || len(j.unannounced) != 2 {
		t.Fatalf("with no room: again in %v, %v to tell", again, j.unannounced)
	}
	room = true
	if again := j.announceAnswered(); again != rejoinInterval || len(messages) != 2 || len(j.unannounced) != 0 {
		t.Fatalf("again in %v, told %q, %v to tell", again, messages, j.unannounced)
	}
	j.setListed("listed", addr(1))
	if got := dialled(j, time.Now().Add(2*announcePatience)); len(got) != 1 || got[0] != addr(2).String() {
		t.Errorf("dials %v, want the one that memberlist did not take", got)
	}
	if _, _, announced := j.counts(); announced != 2 {
		t.Errorf("counts %d", announced)
	}
}

// TestJoinerWaitsForNews: in a large mesh a node that is back is dialled by nobody
// before its news can have come; it is not put off by being heard again.
func TestJoinerWaitsForNews(t *testing.T) {
	for nodes, least := range map[int]time.Duration{newsFrom - 1: 0, 200: 450 * time.Millisecond, 5000: newsMost / 2} {
		j := testJoiner(nil)
		for i := range nodes {
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 7946)
			j.setListed(state.NodeID(fmt.Sprint("n", i)), a)
		}
		begin := time.Now()
		j.requestJoin("back", addr(3))
		first := j.wanted[addr(3)].after
		j.requestJoin("back", addr(3))
		if again := j.wanted[addr(3)].after; again != first {
			t.Errorf("%d nodes: put off from %v to %v", nodes, first, again)
		}
		if least > 0 {
			if got := dialled(j, begin.Add(least-time.Millisecond)); len(got) > 0 {
				t.Errorf("%d nodes: dials %v at once", nodes, got)
			}
		}
		if got := dialled(j, begin.Add(2*least+time.Second)); len(got) != 1 {
			t.Errorf("%d nodes: dials %v at last", nodes, got)
		}
	}
}

// TestAnswerShowsWhere: only an answer to this node's own question lets memberlist be told.
func TestAnswerShowsWhere(t *testing.T) {
	g := newGround()
	l, _ := newLiveness(g)
	c := &Core{env: g.env, roster: *g.roster, liveness: *l}
	m := g.addMember("a")
	g.roster.setListed(m, false)
	m.phase, m.reachedAt = phaseDead, 0
	l.heardFrom("a", 1)
	if c.answeredAt("a", m.addr) {
		t.Error("a packet in its name shows where it is")
	}
	if m.pingAt == 0 {
		t.Error("it is not asked")
	}
	g.now += time.Millisecond
	l.markReached(m)
	if !c.answeredAt("a", m.addr) || c.answeredAt("a", addr(99)) {
		t.Error("its answer does not show where it is, or anywhere")
	}
	rejoins := 0
	for _, k := range g.kinds() {
		if k == EventRejoin {
			rejoins++
		}
	}
	if rejoins != 2 {
		t.Errorf("asks %d times to have it listed: when it was heard, and when it answered", rejoins)
	}
	if g.now += 2 * answerFresh; c.answeredAt("a", m.addr) {
		t.Error("an old answer counts")
	}
}
