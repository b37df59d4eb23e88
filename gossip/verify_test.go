package gossip

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"meshd/state"
)

// sharedMesh is the ground of a node among so many that it leaves most checks to
// others, and its suspect.
func sharedMesh(t *testing.T) (*ground, *liveness, *member) {
	t.Helper()
	g := newGround()
	l, _ := newLiveness(g)
	for i := range 200 {
		g.addMember(state.NodeID(fmt.Sprintf("m%03d", i)))
	}
	if g.roster.observers() != 200 {
		t.Fatalf("%d members could be told of a death", g.roster.observers())
	}
	m := g.roster.members["m000"]
	g.now += time.Minute
	return g, l, m
}

// reported is the membership's word that a member is dead.
func reported(g *ground, l *liveness, m *member) {
	g.roster.setListed(m, false)
	m.unlistedAt = g.now
	l.observe(m, signUnlisted)
}

// waiting reports m dead until this node leaves the check to others.
func waiting(t *testing.T, g *ground, l *liveness, m *member) {
	t.Helper()
	for range 100 {
		if reported(g, l, m); m.waits {
			return
		}
		l.setPhase(m, phaseAlive)
		l.pings.schedule(m, 0)
		g.now += time.Minute
	}
	t.Fatal("every check is this node's own")
}

// TestFewPing: G11. About eight of many nodes ping a suspect.
func TestFewPing(t *testing.T) {
	g, l, _ := sharedMesh(t)
	pingers := 0
	for _, m := range slices.Clone(g.roster.ordered.all()) {
		if reported(g, l, m); !m.waits {
			pingers++
		}
	}
	if pingers < 1 || pingers > 20 {
		t.Errorf("this node pings %d of 200 suspects itself", pingers)
	}
	if int(g.Stats.ChecksWaited) != 200-pingers {
		t.Errorf("%d checks are counted as left to others", g.Stats.ChecksWaited)
	}
}

// TestNotLeftToOthers: G11. What others need not know of, and a suspect that only
// answers pings, this node pings itself.
func TestNotLeftToOthers(t *testing.T) {
	_, l, m := sharedMesh(t)
	l.roster.setListed(m, false)
	for name, x := range map[string]struct {
		s       sign
		prepare func()
	}{
		"named in a stream": {signNamed, func() {}},
		"still listed":      {signUnanswered, func() { l.roster.setListed(m, true) }},
		"a change was just pulled": {signUnlisted, func() {
			l.roster.setListed(m, false)
			m.pulledAt = l.now
		}},
	} {
		x.prepare()
		for range 50 {
			if l.othersPing(m, x.s) {
				t.Errorf("%s: the check is left to others", name)
				break
			}
		}
		m.pulledAt = 0
		l.roster.setListed(m, false)
	}
}

// TestOldSuspectIsPinged: G21. A suspect of a version that does not refute is pinged by
// everybody, as ever.
func TestOldSuspectIsPinged(t *testing.T) {
	g, l, m := sharedMesh(t)
	g.roster.setListed(m, false)
	for _, refutes := range []bool{false, true} {
		src := state.NewStore(m.id, map[bool]uint64{false: 1, true: 2}[refutes], state.DefaultLimits(), new(counter))
		info := state.NodeInfo{Boot: 1, Addr: m.addr, Refutes: refutes}
		_, err := src.Global().Commit([]state.Change{{Kind: state.KindNode, Body: string(state.AppendNode(nil, info))}})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := g.store.Apply(src.Global().Delta(state.Want{Owner: m.id}, 1<<20)); err != nil || r != state.Applied {
			t.Fatal(r, err)
		}
		left := 0
		for range 100 {
			if l.othersPing(m, signUnlisted) {
				left++
			}
		}
		if refutes != (left > 50) {
			t.Errorf("refutes %v: %d of 100 checks are left to others", refutes, left)
		}
	}
}

// TestLastLook: G11. A node that waits sends the suspect two packets before it hides it,
// and none after.
func TestLastLook(t *testing.T) {
	g, l, m := sharedMesh(t)
	k := &checks{env: g.env, roster: g.roster, outbox: g.outbox, pings: l.pings, liveness: l}
	waiting(t, g, l, m)
	if types, _ := g.sent(t); len(types) > 0 && m.pingAt <= g.now {
		t.Fatalf("it sends %v at once", types)
	}
	direct, through, news := 0, 0, 0
	for end := m.checkUntil + time.Minute; g.now < end && m.pingAt > 0; g.now = max(g.now, m.pingAt) {
		k.run()
		types, to := g.sent(t)
		for i, typ := range types {
			switch {
			case typ == framePing && to[i] == m.id:
				direct++
			case typ == frameAsk:
				through++
			case typ == frameWants:
				news++
			}
		}
	}
	if direct != 1 || through != 1 || news != 6 {
		t.Errorf("%d pings, %d through others, %d questions for changes", direct, through, news)
	}
	if m.phase != phaseDead {
		t.Errorf("a suspect that gives no sign is %v", m.phase)
	}
}

// TestPushedChange: G11. A change that a suspect made ends the check of a node that
// waits, and that of one that pings it as the word of others.
func TestPushedChange(t *testing.T) {
	g, l, m := sharedMesh(t)
	waiting(t, g, l, m)
	g.kinds()
	l.changePushed(m.id, false)
	if m.phase != phaseAlive || slices.Contains(g.kinds(), EventRejoin) {
		t.Errorf("who waits: %v", m.phase)
	}
	m.waits, m.phase, m.checkedAt = false, phaseVerify, g.now
	if l.changePushed(m.id, false); m.phase != phaseVerify {
		t.Errorf("who pings: %v", m.phase)
	}
	if l.endCheck(m); m.phase != phaseRelayed {
		t.Errorf("at the end of its check: %v", m.phase)
	}
	l.setPhase(m, phaseLeft)
	if l.changePushed(m.id, false); m.phase != phaseLeft {
		t.Errorf("one that left: %v", m.phase)
	}
}

// TestPulledChange: G11. A change that was pulled may be old: it has one that waits
// ping the suspect itself.
func TestPulledChange(t *testing.T) {
	g, l, m := sharedMesh(t)
	waiting(t, g, l, m)
	least := g.now + g.cfg.VerifyFor
	if l.changePulled(m.id); m.phase != phaseVerify || m.waits || m.pingAt > g.now || m.checkUntil < least {
		t.Errorf("%v, waits %v, pinged at %v", m.phase, m.waits, m.pingAt)
	}
}

// TestReportAfterARefutation: G11. A report of a member that has just refuted one is
// put off, and looked at again if the membership does not list the member by then.
func TestReportAfterARefutation(t *testing.T) {
	g, l, m := sharedMesh(t)
	k := &checks{env: g.env, roster: g.roster, outbox: g.outbox, pings: l.pings, liveness: l}
	l.changePushed(m.id, true)
	g.now += l.refutationMemory() / 2
	if reported(g, l, m); m.phase != phaseAlive || g.Stats.ReportsPutOff != 1 {
		t.Fatalf("%v, %d reports put off", m.phase, g.Stats.ReportsPutOff)
	}
	g.now = m.pingAt
	if k.run(); m.phase != phaseVerify {
		t.Errorf("not listed again and silent: %v", m.phase)
	}
	l.setPhase(m, phaseAlive)
	l.pings.schedule(m, 0)
	l.changePushed(m.id, true)
	reported(g, l, m)
	g.roster.setListed(m, true)
	g.now = m.pingAt
	if k.run(); m.phase != phaseAlive || m.pingAt != 0 {
		t.Errorf("listed again: %v, pinged at %v", m.phase, m.pingAt)
	}
}

// TestLooksAreBounded: G11. However many deaths are reported at once, a node pings a
// bounded number of suspects a second, and hides none without.
func TestLooksAreBounded(t *testing.T) {
	g, l, m := sharedMesh(t)
	waiting(t, g, l, m)
	for !l.pings.lookBudget.empty(askRate) {
		l.pings.lookBudget.take(0)
		l.pings.lookBudget.at = g.now
	}
	until := m.checkUntil
	if l.pings.look(m); m.checkUntil <= until || len(g.outbox.sends) > 0 || g.Stats.LooksPutOff != 1 {
		t.Errorf("check until %v, %d packets, %d put off", m.checkUntil, len(g.outbox.sends), g.Stats.LooksPutOff)
	}
}

// TestRefutation: G21. Two nodes that have this one pinged make it write a beacon, and
// one alone does not; it writes one in a quarter of a second at most.
func TestRefutation(t *testing.T) {
	g, _, _ := sharedMesh(t)
	r := &refutation{env: g.env, roster: g.roster, outbox: g.outbox}
	for range 3 {
		r.asked("m001")
	}
	if r.asked("nobody"); g.Stats.Refutations != 0 {
		t.Fatal("it refutes what one asks, or what nobody asks")
	}
	r.asked("m002")
	r.asked("m003")
	if ks := g.kinds(); !slices.Equal(ks, []EventKind{EventBeacon}) || g.Stats.Refutations != 1 {
		t.Fatalf("two askers: events %v", ks)
	}
	g.now += refuteInterval
	if r.asked("m001"); g.Stats.Refutations != 2 {
		t.Error("it does not refute again")
	}
	g.now += time.Minute
	if r.asked("m002"); g.Stats.Refutations != 2 {
		t.Error("askers that are far apart count as two")
	}
	g.leftAt = g.now
	if r.asked("m001"); g.Stats.Refutations != 2 {
		t.Error("it refutes after its goodbye")
	}
}

// TestRefutationsAreBounded: G21. A peer with the key that has everybody pinged without
// end makes each node write one beacon, and the mesh 32 a second.
func TestRefutationsAreBounded(t *testing.T) {
	g, _, _ := sharedMesh(t)
	r := &refutation{env: g.env, roster: g.roster, outbox: g.outbox}
	for i := range 120 * 100 {
		before := g.Stats.Refutations
		r.asked([]state.NodeID{"m001", "m002"}[i%2])
		if g.Stats.Refutations > before { // so do the others
			for range 199 {
				r.heard()
			}
		}
		g.now += 10 * time.Millisecond
	}
	written := float64(g.Stats.Refutations * 200)
	if most := refuteRate.packets*(120+refuteRate.seconds) + 200; written > most || written < 200 {
		t.Errorf("the mesh writes %.0f beacons in two minutes", written)
	}
	if g.Stats.RefutationsDropped == 0 {
		t.Error("none is counted as left out")
	}
	for range 1 << 20 {
		r.heard()
	}
	g.now += time.Duration((200/refuteRate.packets+refuteRate.seconds)*float64(time.Second)) + time.Second
	before := g.Stats.Refutations
	r.asked("m001")
	if r.asked("m002"); g.Stats.Refutations == before {
		t.Error("beacons that somebody made up end refutations for longer than the size of the mesh allows")
	}
}
