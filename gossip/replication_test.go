package gossip

import (
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/state"
)

func pushOn(g *ground) *push {
	p := newPush(g.env, g.roster, g.outbox, g.nets, &pace{env: g.env})
	return &p
}

// What a node writes leaves at once to Fanout members, and again as recent news.
func TestPushOfOwn(t *testing.T) {
	g := newGround()
	for i := range 20 {
		g.addMember(state.NodeID("n" + string(rune('a'+i))))
	}
	p, n := pushOn(g), g.nets.byName[""]
	g.write(t, "net")
	p.pushOwn(n)
	p.flush()
	types, to := g.sent(t)
	if len(to) != g.cfg.Fanout || slices.ContainsFunc(types, func(typ byte) bool { return typ != framePush }) {
		t.Fatalf("sent %v to %v", types, to)
	}
	if p.pushOwn(n); len(p.queue.items) != 0 {
		t.Error("it is pushed again without a change")
	}
	if !p.isFresh(n, "self") || p.pace.busyUntil <= g.now {
		t.Error("a change is no news")
	}
	g.now = p.hotTimes[0]
	if p.sendHot(); p.isFresh(n, "self") {
		t.Error("it stays fresh")
	}
	if types, _ := g.sent(t); !slices.Equal(types, []byte{frameHot}) {
		t.Errorf("as recent news, sent %v", types)
	}
}

// What is too large to be pushed is announced.
func TestPushAnnouncesWhatIsLarge(t *testing.T) {
	g := newGround()
	g.addMember("a")
	p := pushOn(g)
	for i := range 40 {
		g.write(t, strings.Repeat("n", 40)+string(rune('a'+i%26))+string(rune('a'+i/26)))
	}
	p.pushOwn(g.nets.byName[""])
	p.flush()
	if types, _ := g.sent(t); !slices.Equal(types, []byte{frameHot}) {
		t.Errorf("sent %v", types)
	}
}

// A peer that floods a node makes it drop relayed deltas, not its own (G7).
func TestPushKeepsRoomForOwn(t *testing.T) {
	g := newGround()
	g.addMember("a")
	p := pushOn(g)
	p.queue.tokens = float64(g.cfg.PushBurst) / 8
	e := g.newPacket()
	p.sendPush("a", e, false)
	p.sendPush("a", e, true)
	if len(g.outbox.sends) != 1 || g.Stats.PushDropped != 1 {
		t.Errorf("%d sent, %d dropped", len(g.outbox.sends), g.Stats.PushDropped)
	}
}

// A stream is asked of one peer at a time; when it does not answer, of the next.
func TestPull(t *testing.T) {
	g := newGround()
	p := newPull(g.env, g.outbox, g.nets)
	n := g.nets.byName[""]
	w := lackOf(state.Want{Owner: "o"}, state.Head{Inc: 1, Version: 3})
	p.request("a", n, []lack{w})
	p.request("b", n, []lack{w})
	if types, to := g.sent(t); !slices.Equal(types, []byte{frameWants}) || to[0] != "a" {
		t.Fatalf("sent %v to %v", types, to)
	}
	g.now = p.pulls[streamKey{"", "o"}].deadline
	p.retry()
	if types, to := g.sent(t); !slices.Equal(types, []byte{frameWants}) || to[0] != "b" || g.Stats.PullTimeouts != 1 {
		t.Fatalf("without an answer, sent %v to %v", types, to)
	}
	if p.answered(streamKey{"", "o"}, "b"); len(p.pulls) != 0 || len(p.perPeer) != 0 {
		t.Errorf("after the answer %d pulls are left, %v", len(p.pulls), p.perPeer)
	}
}

// A pull that has just to wait for its push is sent only then.
func TestPullSoon(t *testing.T) {
	g := newGround()
	p := newPull(g.env, g.outbox, g.nets)
	p.requestSoon("a", g.nets.byName[""], state.Want{Owner: "o"})
	if p.retry(); len(g.outbox.sends) != 0 {
		t.Error("it is sent at once")
	}
	g.now += g.cfg.Coalesce
	p.retry()
	if types, _ := g.sent(t); !slices.Equal(types, []byte{frameWants}) {
		t.Errorf("after a moment, sent %v", types)
	}
}

func TestPullBounds(t *testing.T) {
	g := newGround()
	p := newPull(g.env, g.outbox, g.nets)
	for i := range maxPullsAt + 5 {
		p.requestSoon("a", g.nets.byName[""], state.Want{Owner: state.NodeID(rune(0x4e00 + i))})
	}
	if len(p.pulls) != maxPullsAt || p.hasRoom("a") || !p.hasRoom("b") {
		t.Errorf("%d pulls at one peer", len(p.pulls))
	}
	if p.dropNetwork(""); len(p.pulls) != 0 || len(p.perPeer) != 0 {
		t.Error("the pulls of a network that was left stay")
	}
}

// repairStub stands for the neighbours of repair.
type repairStub struct {
	fresh    bool
	asked    []state.NodeID
	defended []state.Head
}

func (s *repairStub) isFresh(*network, state.NodeID) bool { return s.fresh }

func (s *repairStub) hotHeads(*network, time.Duration, int) []state.OwnerHead { return nil }
func (s *repairStub) dropAt(streamKey, state.NodeID)                          {}
func (s *repairStub) defend(_ *network, h state.Head, _ bool)                 { s.defended = append(s.defended, h) }

func (s *repairStub) undelivered(*member) bool { return false }

func (s *repairStub) request(_ state.NodeID, _ *network, ws []lack) {
	for _, w := range ws {
		s.asked = append(s.asked, w.Owner)
	}
}

func newRepair(g *ground, s *repairStub) *repair {
	p := &probes{env: g.env, roster: g.roster, outbox: g.outbox, liveness: s}
	return &repair{
		env: g.env, roster: g.roster, outbox: g.outbox, nets: g.nets, pace: &pace{env: g.env}, probes: p,
		fetch:  &fetch{env: g.env, roster: g.roster, outbox: g.outbox, nets: g.nets, probes: p},
		reaper: &reaper{env: g.env, due: map[state.NodeID]time.Duration{}}, news: s, pull: s, own: s,
	}
}

// Heads are compared one by one: what is missing here is asked for, what is missing
// there is sent, and the own stream is defended.
func TestRepairComparesHeads(t *testing.T) {
	g, s := newGround(), &repairStub{}
	g.addMember("peer")
	r, n := newRepair(g, s), g.nets.byName[""]
	ours := g.otherStream(t, "ours", "net")
	g.otherStream(t, "missing-there", "net")
	theirs := []state.OwnerHead{
		{Owner: "ours", Head: ours},
		{Owner: "missing-here", Head: state.Head{Inc: 1, Version: 2, Sum: 5}},
		{Owner: "kept", Head: state.Head{Inc: 1, Version: 2, Sum: 5}, Kept: true},
		{Owner: "self", Head: state.Head{Inc: 4, Version: 1, Sum: 5}},
	}
	lacks, lacking := r.compareHeads("peer", n, theirs, n.table.Heads(func(state.NodeID) bool { return true }))
	if !lacks || !slices.Equal(s.asked, []state.NodeID{"missing-here"}) {
		t.Errorf("asks for %v", s.asked)
	}
	if types, _ := g.sent(t); !lacking || !slices.Equal(types, []byte{frameDelta}) || g.Stats.DeltasOut != 1 {
		t.Errorf("sent %v with %d deltas", types, g.Stats.DeltasOut)
	}
	if len(s.defended) != 1 || s.defended[0].Inc != 4 {
		t.Errorf("defended against %v", s.defended)
	}
	s.fresh = true
	r.compareHeads("peer", n, theirs, n.table.Heads(func(state.NodeID) bool { return true }))
	if types, _ := g.sent(t); len(types) != 0 {
		t.Errorf("news whose push is under way is sent: %v", types)
	}
}

// A round compares with one member; without any the tables are all that there is.
func TestRepairRound(t *testing.T) {
	g, s := newGround(), &repairStub{}
	r := newRepair(g, s)
	g.now = time.Minute
	if r.round(); !g.nets.byName[""].table.View().Synced() {
		t.Error("a node that is alone waits for others")
	}
	g.addMember("a")
	r.round()
	if types, to := g.sent(t); !slices.Equal(types, []byte{frameProbe}) || to[0] != "a" {
		t.Errorf("sent %v to %v", types, to)
	}
}

// A table that is not there yet is asked of a few members, and of none twice.
func TestFetchAsksFew(t *testing.T) {
	g, s := newGround(), &repairStub{}
	f := newRepair(g, s).fetch
	for i := range 100 {
		g.addMember(state.NodeID("n" + string(rune(0x4e00+i))))
	}
	n := g.nets.byName[""]
	f.request(n)
	f.request(n)
	f.flush()
	types, to := g.sent(t)
	slices.Sort(to)
	if len(types) != peersPerAsk || len(slices.Compact(to)) < 2 {
		t.Errorf("sent %v to %v", types, to)
	}
	if f.memberProven("n" + state.NodeID(rune(0x4e00))); len(f.askQueue) != 1 || !n.provenAppeared {
		t.Error("a member that shows that it exists is not asked")
	}
}

// Claims wait until those of others are known, and are pushed like any change.
func TestClaimsWait(t *testing.T) {
	g, pushed := newGround(), &publishedStub{}
	g.cfg.ExpectPeers = true
	k := &claims{
		env: g.env, roster: g.roster, outbox: g.outbox, nets: g.nets, push: pushed,
		provisionals: map[*network]struct{}{},
	}
	n := g.nets.byName["net"]
	n.carrier.Services["web"] = &state.Hosting{Tasks: 1}
	if k.carry(n); n.carryAt == 0 || g.Stats.Carries != 0 {
		t.Errorf("claims before it knows those of others: next at %v", n.carryAt)
	}
	n.markCompared()
	if k.carry(n); g.Stats.Carries != 1 || n.carrier.Provisional {
		t.Errorf("%d looks, provisional %v", g.Stats.Carries, n.carrier.Provisional)
	}
	g.yielded = true
	if k.carry(n); g.Stats.Carries != 1 {
		t.Error("a node that has yielded its name claims")
	}
}

// commitStub records what is written.
type commitStub struct{ changes []state.Change }

func (c *commitStub) Commit(_ time.Duration, _ string, changes []state.Change) error {
	c.changes = append(c.changes, changes...)
	return nil
}

// Only the answer to a challenge shows that another node has the name, and the one that
// runs longer keeps it.
func TestDuplicates(t *testing.T) {
	g, own := newGround(), &commitStub{}
	in := &incarnation{env: g.env, outbox: g.outbox, nets: g.nets, push: &publishedStub{}}
	d := &duplicates{env: g.env, outbox: g.outbox, nets: g.nets, incarnation: in, own: own}
	g.now = 10 * time.Second
	d.challenge(partAddr(7))
	if types, _ := g.sent(t); !slices.Equal(types, []byte{framePing}) {
		t.Fatalf("sent %v", types)
	}
	answer := func(nonce uint64) {
		e := newEncoder("self", 3)
		e.ping(frameAck, pingFrame{nonce: nonce, target: "self", up: time.Hour})
		h, rest, err := decodeHead(e.b)
		if err != nil {
			t.Fatal(err)
		}
		d.receiveFromSelf(h.boot, rest)
	}
	if answer(d.other.nonce + 1); g.yielded {
		t.Fatal("a forged answer takes the name away")
	}
	if answer(d.other.nonce); !g.yielded {
		t.Fatal("the node that runs for an hour does not get the name")
	}
	g.now += yieldFor
	if d.watchDuplicate(); g.yielded || len(own.changes) != 1 || own.changes[0].Key != "net" {
		t.Errorf("when the other is gone: yielded %v, wrote %v", g.yielded, own.changes)
	}
}
