package gossip

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"meshd/state"
)

// ground is what every part stands on. The tests of parts build the one that they
// look at on it, with fakes for its neighbours.
type ground struct {
	*env
	roster *roster
	outbox *outbox
	nets   *nets
}

// newGround returns the ground of a node "self" that takes part in "net" and has
// compared nothing yet. Its clock stands at one second.
func newGround() *ground {
	cfg := CoreConfig{Self: "self", Boot: 9, Addr: partAddr(99), Probing: 200 * time.Millisecond}
	cfg.setDefaults()
	store := state.NewStore("self", 1, state.DefaultLimits(), new(counter))
	e := &env{cfg: cfg, rng: rand.New(rand.NewPCG(1, 1)), store: store, now: time.Second}
	g := &ground{env: e}
	r := newRoster(e)
	g.roster = &r
	g.outbox = &outbox{env: e, roster: g.roster, budgets: newAnswerBudgets()}
	g.nets = &nets{
		env: e, byName: map[string]*network{}, byHash: map[uint64]*network{}, parted: map[string]bool{}, hashOf: networkHash,
	}
	g.nets.add("", store.Global())
	g.nets.add("net", store.Join("net"))
	return g
}

func partAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), 7946)
}

// addMember adds a listed and proven member that takes part in the global scope.
func (g *ground) addMember(id state.NodeID) *member {
	n := len(g.roster.members) + 1
	m := &member{
		id: id, place: place{addr: partAddr(n), nonce: uint64(n)}, offered: true, seen: true, proven: true, since: g.now,
		heardAt: g.now, reachedAt: g.now, datagramAt: g.now,
	}
	g.roster.add(m)
	g.roster.setListed(m, true)
	g.store.SetLiveness(id, state.Alive)
	return m
}

// sent empties the outbox and returns the types of the frames, in order, and to whom
// they go.
func (g *ground) sent(t *testing.T) (types []byte, to []state.NodeID) {
	t.Helper()
	for _, s := range g.outbox.sends {
		_, rest, err := decodeHead(s.Data)
		for err == nil && len(rest) > 0 {
			var typ byte
			if typ, _, rest, err = nextFrame(rest); err == nil {
				types, to = append(types, typ), append(to, s.To)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	g.outbox.sends, g.outbox.sendBytes = nil, 0
	return types, to
}

// kinds empties the outbox's events and returns their kinds.
func (g *ground) kinds() (ks []EventKind) {
	for _, e := range g.outbox.events {
		ks = append(ks, e.Kind)
	}
	g.outbox.events = nil
	return ks
}

// write commits records to the own stream of the global scope.
func (g *ground) write(t *testing.T, networks ...string) {
	t.Helper()
	var changes []state.Change
	for _, n := range networks {
		changes = append(changes, state.Change{Kind: state.KindMember, Key: n})
	}
	if _, err := g.store.Global().Commit(changes); err != nil {
		t.Fatal(err)
	}
}

// otherStream merges the stream of another owner, who takes part in networks.
func (g *ground) otherStream(t *testing.T, owner state.NodeID, networks ...string) state.Head {
	t.Helper()
	src := state.NewStore(owner, 1, state.DefaultLimits(), new(counter))
	var changes []state.Change
	for _, n := range networks {
		changes = append(changes, state.Change{Kind: state.KindMember, Key: n})
	}
	if _, err := src.Global().Commit(changes); err != nil {
		t.Fatal(err)
	}
	if r, err := g.store.Apply(src.Global().Delta(state.Want{Owner: owner}, 1<<20)); r != state.Applied || err != nil {
		t.Fatal(r, err)
	}
	h, _ := g.store.Global().Head(owner)
	return h
}

// publishedStub counts what is pushed.
type publishedStub struct{ networks []string }

func (p *publishedStub) pushOwn(n *network) { p.networks = append(p.networks, n.name) }

func TestPace(t *testing.T) {
	g := newGround()
	p := &pace{env: g.env}
	if p.nextRound(); p.roundAt-g.now < g.cfg.RepairIdle*3/4 {
		t.Errorf("at rest the next round is after %v", p.roundAt-g.now)
	}
	if p.newsCame(); p.roundAt-g.now > g.cfg.RepairBusy*5/4 {
		t.Errorf("after news the next round is after %v", p.roundAt-g.now)
	}
	if p.nextRound(); p.roundAt-g.now > g.cfg.RepairBusy*5/4 {
		t.Errorf("the round after that is after %v", p.roundAt-g.now)
	}
	g.now += g.cfg.BusyFor
	if p.nextRound(); p.roundAt-g.now < g.cfg.RepairIdle*3/4 {
		t.Errorf("news of long ago keeps the rounds at %v", p.roundAt-g.now)
	}
}

func TestReaper(t *testing.T) {
	g := newGround()
	r := &reaper{env: g.env, due: map[state.NodeID]time.Duration{}}
	r.later("a")
	g.now += reapAfter - 1
	if r.run(); !r.waitsFor("a") {
		t.Error("a new life has no time to say where it takes part")
	}
	g.now++
	if r.run(); r.waitsFor("a") {
		t.Error("its leftovers are never dropped")
	}
	for i := range maxReaps + 1 {
		r.later(state.NodeID(rune(0x4e00 + i)))
	}
	if len(r.due) != maxReaps || g.Stats.ReapsDropped != 1 {
		t.Errorf("%d wait, %d were dropped", len(r.due), g.Stats.ReapsDropped)
	}
}

func TestIncarnation(t *testing.T) {
	g := newGround()
	g.write(t, "net")
	pushed := &publishedStub{}
	in := &incarnation{env: g.env, outbox: g.outbox, nets: g.nets, push: pushed}
	h, _ := g.store.Global().Head("self")
	in.defend(g.nets.byName[""], h, false)
	if g.store.Incarnation() != 1 {
		t.Fatal("a peer that holds what this node wrote made it start an incarnation")
	}
	h.Inc = 7
	in.defend(g.nets.byName[""], h, false)
	if g.store.Incarnation() != 8 || !slices.Equal(pushed.networks, []string{"", "net"}) {
		t.Fatalf("incarnation %d, pushed %q", g.store.Incarnation(), pushed.networks)
	}
	if ks := g.kinds(); !slices.Equal(ks, []EventKind{EventReincarnate}) {
		t.Errorf("events %v", ks)
	}
	in.needAbove(20)
	if g.store.Incarnation() != 8 || in.next.due < g.now+lifePause {
		t.Errorf("the second one follows at %v, incarnation %d", in.next.due, g.store.Incarnation())
	}
	g.now = in.next.due
	if in.startDue(); g.store.Incarnation() != 21 {
		t.Errorf("incarnation %d after its pause", g.store.Incarnation())
	}
}

func TestBeacons(t *testing.T) {
	g := newGround()
	b := &beacons{env: g.env, roster: g.roster, outbox: g.outbox}
	if b.write(); b.at != 0 {
		t.Error("a beacon is due though none are wanted")
	}
	g.cfg.BeaconEvery = time.Second
	for range 3 {
		g.addMember(state.NodeID(rune('a' + len(g.roster.members))))
	}
	b.write()
	if n := len(g.kinds()); n != 0 || b.at < g.now+3*time.Second {
		t.Errorf("%d beacons at the start, the next one at %v of 4 nodes", n, b.at)
	}
	g.now = b.at
	if b.write(); len(g.kinds()) != 1 {
		t.Error("no beacon is written when it is due")
	}
}
