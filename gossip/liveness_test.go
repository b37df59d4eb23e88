package gossip

import (
	"slices"
	"testing"
	"time"

	"meshd/state"
)

// provenStub records who was proven.
type provenStub struct{ ids []state.NodeID }

func (p *provenStub) memberProven(id state.NodeID) { p.ids = append(p.ids, id) }

func newLiveness(g *ground) (*liveness, *provenStub) {
	proven := &provenStub{}
	pg := &pings{env: g.env, roster: g.roster, outbox: g.outbox}
	l := &liveness{env: g.env, roster: g.roster, outbox: g.outbox, pings: pg, tables: proven}
	l.goodbyes = &goodbyes{
		env: g.env, roster: g.roster, outbox: g.outbox, pings: pg, members: l, checks: map[state.NodeID]*goodbyeCheck{},
	}
	return l, proven
}

// A reported death hides nothing until a check ends without an answer, and one packet
// brings the node back.
func TestLivenessOfOne(t *testing.T) {
	g := newGround()
	l, _ := newLiveness(g)
	m := g.addMember("a")
	g.roster.setListed(m, false)
	l.observe(m, signUnlisted)
	if m.phase != phaseVerify || g.store.Liveness("a") != state.Suspected || m.pingAt == 0 {
		t.Fatalf("a reported death: %v, served as %v", m.phase, g.store.Liveness("a"))
	}
	g.now = m.checkUntil
	if l.endCheck(m); m.phase != phaseDead || g.store.Liveness("a") != state.Dead {
		t.Fatalf("after a check without answer: %v", m.phase)
	}
	if l.heardFrom("a", 1); m.phase != phaseAlive {
		t.Fatalf("after a packet: %v", m.phase)
	}
	want := []EventKind{EventSuspect, EventDead, EventRejoin, EventAlive}
	if got := g.kinds(); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

// A member is proven once, when it answers.
func TestLivenessProves(t *testing.T) {
	g := newGround()
	l, proven := newLiveness(g)
	m := g.addMember("a")
	m.proven = false
	l.markReached(m)
	l.markReached(m)
	if !m.proven || !slices.Equal(proven.ids, []state.NodeID{"a"}) {
		t.Errorf("proven %v, and %v hear of it", m.proven, proven.ids)
	}
}

// The dead are put away step by step, and at last forgotten.
func TestLivenessRetiresStreams(t *testing.T) {
	g := newGround()
	l, _ := newLiveness(g)
	m := g.addMember("a")
	g.otherStream(t, "a", "net")
	g.roster.setListed(m, false)
	l.setPhase(m, phaseDead)
	for _, x := range []struct {
		after time.Duration
		want  retirement
	}{{g.cfg.StopOfferingAfter, inService}, {2, notOffered}, {g.cfg.DropAfter - g.cfg.StopOfferingAfter, dropped}} {
		g.now += x.after
		if l.sweep(); m.retired != x.want {
			t.Errorf("%v after its death its streams are at %d, not %d", g.now-m.since, m.retired, x.want)
		}
	}
	g.now += g.cfg.Graves
	if l.sweep(); len(g.roster.members) != 0 {
		t.Error("it is never forgotten")
	}
}

// memberStub records what goodbyes finds out.
type memberStub struct {
	signs   []sign
	reached int
}

func (s *memberStub) observe(_ *member, what sign) { s.signs = append(s.signs, what) }
func (s *memberStub) markReached(*member)          { s.reached++ }

func TestGoodbyes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer goodbye // goodbyeUnasked: none
		signs  []sign
	}{
		{"confirmed", goodbyeConfirmed, []sign{signGoodbyeConfirmed}},
		{"denied", goodbyeDenied, nil},
		{"without an answer", goodbyeUnasked, []sign{signGoodbyeConfirmed}},
	} {
		g, found := newGround(), &memberStub{}
		m := g.addMember("a")
		gb := &goodbyes{
			env: g.env, roster: g.roster, outbox: g.outbox, members: found, checks: map[state.NodeID]*goodbyeCheck{},
		}
		gb.ask(m)
		if types, to := g.sent(t); !slices.Equal(types, []byte{framePing}) || to[0] != "a" {
			t.Fatalf("%s: sent %v to %v", tt.name, types, to)
		}
		c := gb.checks["a"]
		if gb.onAnswer(m, pingFrame{nonce: c.nonce + 1, goodbye: goodbyeConfirmed}) {
			t.Errorf("%s: an answer without the nonce counts", tt.name)
		}
		if tt.answer == goodbyeUnasked {
			g.now = c.until
			gb.run()
		} else if !gb.onAnswer(m, pingFrame{nonce: c.nonce, goodbye: tt.answer}) {
			t.Errorf("%s: the answer does not count", tt.name)
		}
		if !slices.Equal(found.signs, tt.signs) || (found.reached == 1) != (tt.answer == goodbyeDenied) {
			t.Errorf("%s: signs %v, reached %d times", tt.name, found.signs, found.reached)
		}
		if len(gb.checks) != 0 {
			t.Errorf("%s: it is asked on", tt.name)
		}
	}
}
