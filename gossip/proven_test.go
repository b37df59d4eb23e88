package gossip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"meshd/state"
)

// crowd returns a core that lists members, and how many of them answered it.
func crowd(real, ghosts int) *Core {
	c := NewCore(CoreConfig{Self: "self", Boot: 9, Probing: 200 * time.Millisecond}, rand.New(rand.NewPCG(1, 1)),
		state.NewStore("self", 1, state.DefaultLimits(), new(counter)))
	for i := range real + ghosts {
		id, addr := memberName(i, real), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), 7946)
		c.MemberAlive(time.Second, id, addr)
		if i < real {
			c.MemberReached(time.Second, id, addr)
		}
	}
	return c
}

func memberName(i, real int) state.NodeID {
	if i < real {
		return state.NodeID(fmt.Sprintf("host%d", i))
	}
	return state.NodeID(fmt.Sprintf("ghost%d", i-real))
}

// die reports members dead and lets the checks of that end.
func die(c *Core, ids ...state.NodeID) {
	for _, id := range ids {
		c.MemberDead(2*time.Second, id)
	}
	for now := 2 * time.Second; now < 12*time.Second; now += 50 * time.Millisecond {
		c.Tick(now)
		c.Drain()
	}
}

// TestNamesThatVanishAreNotPreserved: S12. Members that were only listed tell
// nothing of this node's links when they vanish.
func TestNamesThatVanishAreNotPreserved(t *testing.T) {
	for _, real := range []int{2, 6} {
		c := crowd(real, 60)
		var names []state.NodeID
		for i := range 60 {
			names = append(names, memberName(real+i, real))
		}
		die(c, names...)
		if c.Preserving() {
			t.Errorf("with %d hosts, 60 names that vanish keep the node degraded", real)
		}
		for _, m := range c.Members() {
			if want := map[bool]string{true: "alive", false: "dead"}[m.Addr.Addr().As4()[3] < byte(real)]; m.State != want {
				t.Errorf("with %d hosts, %s is %s, not %s", real, m.ID, m.State, want)
			}
		}
	}
}

// TestNamesDoNotHideALoss: S12. However many names are listed, those who answered
// are kept when most of them vanish.
func TestNamesDoNotHideALoss(t *testing.T) {
	c := crowd(6, 60)
	var hosts []state.NodeID
	for i := range 5 {
		hosts = append(hosts, memberName(i, 6))
	}
	die(c, hosts...)
	if !c.Preserving() {
		t.Error("five of six hosts vanished, and they are not kept")
	}
}

// talk lets the hosts of a crowd answer and speak for a while, the names not.
func talk(c *Core, real int, from, to time.Duration) {
	for now := from; now < to; now += 50 * time.Millisecond {
		for i := range real {
			c.Receive(now, newEncoder(memberName(i, real), 1).b)
			c.MemberReached(now, memberName(i, real), c.roster.members[memberName(i, real)].addr)
		}
		c.Tick(now)
		c.Drain()
	}
}

// TestNamesTakeNoPackets: G17. A name that somebody keeps in the membership is
// as good as dead once a host would have answered, however often it is listed
// again, and until it answers.
func TestNamesTakeNoPackets(t *testing.T) {
	c := crowd(2, 60)
	talk(c, 2, time.Second, 6*time.Second)
	if got := names(c.roster.living("")); len(got) != 2 {
		t.Errorf("packets go to %v", got)
	}
	for i := range 60 {
		c.MemberAlive(6*time.Second, memberName(2+i, 2), c.roster.members[memberName(2+i, 2)].addr)
	}
	sends, _ := c.Drain()
	if got := names(c.roster.living("")); len(got) != 2 || len(sends) > 0 {
		t.Errorf("listed again, packets go to %v, %d at once", got, len(sends))
	}
	for _, m := range c.Members() {
		if want := map[bool]string{true: "alive", false: "dead"}[m.Addr.Addr().As4()[3] < 2]; m.State != want {
			t.Errorf("%s is %s, not %s", m.ID, m.State, want)
		}
	}
	c.MemberReached(time.Minute, "ghost1", c.roster.members["ghost1"].addr)
	if got := names(c.roster.living("")); len(got) != 3 {
		t.Errorf("one that answers after all is not among %v", got)
	}
}

// TestOneThatHearsNobodyKeepsAll: G17. Where no datagram arrives, that nobody
// answers tells nothing of the others.
func TestOneThatHearsNobodyKeepsAll(t *testing.T) {
	c := crowd(0, 8)
	for now := time.Second; now < 4*time.Second; now += 50 * time.Millisecond {
		c.Tick(now)
		c.Drain()
	}
	if got := names(c.roster.living("")); len(got) != 8 {
		t.Errorf("packets go to %v only", got)
	}
}

// TestNamesOfOneHostAreOne: S12. Nodes at one address count as one: whoever has
// many there, and ends them all, does not have the others take themselves for cut
// off.
func TestNamesOfOneHostAreOne(t *testing.T) {
	c := crowd(5, 0)
	var names []state.NodeID
	for i := range 40 {
		id, addr := state.NodeID(fmt.Sprintf("name%d", i)), netip.AddrPortFrom(netip.MustParseAddr("10.9.9.9"),
			uint16(8000+i))
		c.MemberAlive(time.Second, id, addr)
		c.MemberReached(time.Second, id, addr)
		names = append(names, id)
	}
	die(c, names...)
	if c.Preserving() {
		t.Error("40 names of one host that vanish keep the node degraded")
	}
	for _, m := range c.Members() {
		if want := map[bool]string{true: "dead", false: "alive"}[m.Addr.Port() >= 8000]; m.State != want {
			t.Errorf("%s is %s, not %s", m.ID, m.State, want)
		}
	}
}

// TestNewcomersAreCheckedBesideOthers: G17. Checks of many who are known, and do
// not answer, leave newcomers their room.
func TestNewcomersAreCheckedBesideOthers(t *testing.T) {
	const known = maxNewcomerChecks + 50
	c := crowd(known, 0)
	talk(c, known, time.Second, 2*time.Second)
	for i := 2; i < known; i++ { // all but two die
		c.MemberDead(2*time.Second, memberName(i, known))
	}
	addr := netip.MustParseAddrPort("10.9.1.1:7946")
	c.MemberAlive(2*time.Second, "ghost0", addr)
	if c.pings.pinging.len() <= maxNewcomerChecks {
		t.Fatalf("only %d are checked: this test shows nothing", c.pings.pinging.len())
	}
	talk(c, 2, 2*time.Second, 8*time.Second)
	for _, m := range c.Members() {
		if m.ID == "ghost0" && m.State != "dead" {
			t.Errorf("a name that never answered is %s", m.State)
		}
	}
}

// TestManyNamesAreSoonGone: G17. Those who were found absent leave their room to the
// next, although they are pinged on.
func TestManyNamesAreSoonGone(t *testing.T) {
	c := crowd(2, 4*maxNewcomerChecks)
	talk(c, 2, time.Second, 15*time.Second)
	if got := names(c.roster.living("")); len(got) != 2 {
		t.Errorf("after 14 s packets go to %d nodes, two of which exist", len(got))
	}
}

// TestTheProvenAreAsked: G17. A table that is not yet synced is asked of those who
// showed that they are there, whatever names are listed beside them.
func TestTheProvenAreAsked(t *testing.T) {
	c := crowd(2, 60)
	n := c.nets.byName[""]
	n.appeared = nil
	for range 50 {
		to, ok := c.fetch.choose(n)
		if m := c.roster.members[to]; !ok || !m.proven {
			t.Fatalf("%q is asked", to)
		}
	}
}

// TestAHostIsFoundAmongNames: G17. A node that joins is told of hundreds of names
// that somebody made up, and of one host: it asks that one as soon as it answered
// the join, or spoke, and not when its turn comes.
func TestAHostIsFoundAmongNames(t *testing.T) {
	addr := netip.MustParseAddrPort("10.9.9.9:7946")
	for how, show := range map[string]func(c *Core){
		"it answered the join": func(c *Core) { c.JoinAnswered(3*time.Second, addr) },
		"it spoke": func(c *Core) {
			c.ReceiveFrom(3*time.Second, addr,
				newEncoder("zed", 5).b)
			c.Tick(3 * time.Second)
		},
	} {
		c := crowd(0, 600)
		c.MemberAlive(2*time.Second, "zed", addr)
		c.Tick(2 * time.Second)
		c.Drain()
		show(c)
		sends, _ := c.Drain()
		i := slices.IndexFunc(sends, func(s Send) bool { return s.To == "zed" || s.Addr == addr })
		if i < 0 {
			t.Errorf("%s: it is not pinged", how)
			continue
		}
		c.ReceiveFrom(3*time.Second, addr, answerTo(t, sends[i].Data, "zed"))
		sends, _ = c.Drain()
		if !slices.ContainsFunc(sends, func(s Send) bool { return s.To == "zed" }) {
			t.Errorf("%s: it is not asked for the table: %d other packets", how, len(sends))
		}
	}
}

// answerTo is what a node answers to a packet that is a ping.
func answerTo(t *testing.T, packet []byte, from state.NodeID) []byte {
	t.Helper()
	_, rest, err := decodeHead(packet)
	if err != nil {
		t.Fatal(err)
	}
	typ, p, _, err := nextFrame(rest)
	if err != nil || typ != framePing {
		t.Fatalf("a frame of type %d, %v", typ, err)
	}
	f, err := decodePing(p)
	if err != nil {
		t.Fatal(err)
	}
	ack := newEncoder(from, 5)
	ack.ping(frameAck, f)
	return ack.b
}

// TestWhoAnswersAJoinIsAMember: G17, G11. The membership may refuse to list a node:
// whoever has the key can say that it is dead at the highest incarnation. Who
// answered the join, and a ping from the same address, is a member all the same;
// who answers from another address, with another number, or late, is none.
func TestWhoAnswersAJoinIsAMember(t *testing.T) {
	addr, other := netip.MustParseAddrPort("10.9.9.9:7946"), netip.MustParseAddrPort("10.9.9.8:7946")
	for name, x := range map[string]struct {
		at    netip.AddrPort
		after time.Duration
		bend  func(b []byte) []byte
		want  bool
	}{
		"it answers":            {addr, time.Millisecond, func(b []byte) []byte { return b }, true},
		"from another address":  {other, time.Millisecond, func(b []byte) []byte { return b }, false},
		"late":                  {addr, time.Minute, func(b []byte) []byte { return b }, false},
		"with another number":   {addr, time.Millisecond, func([]byte) []byte { return numbered(7) }, false},
		"twice, the second one": {addr, time.Millisecond, func(b []byte) []byte { return b }, true},
	} {
		c := testCore(t, "self")
		c.JoinAnswered(2*time.Second, addr)
		sends, _ := c.Drain()
		i := slices.IndexFunc(sends, func(s Send) bool { return s.Addr == addr && !s.Reliable })
		if i < 0 {
			t.Fatalf("%s: nobody asks who it is", name)
		}
		answer := x.bend(answerTo(t, sends[i].Data, "zed"))
		c.ReceiveFrom(2*time.Second+x.after, x.at, answer)
		c.ReceiveFrom(2*time.Second+x.after, x.at, answer)
		sends, _ = c.Drain()
		if got := slices.Contains(names(c.roster.living("")), "zed"); got != x.want {
			t.Errorf("%s: among the members: %v", name, got)
		}
		if asked := slices.ContainsFunc(sends, func(s Send) bool { return s.To == "zed" }); asked != x.want {
			t.Errorf("%s: asked for its table: %v", name, asked)
		}
	}
}

func numbered(nonce uint64) []byte {
	e := newEncoder("zed", 5)
	e.ping(frameAck, pingFrame{nonce: nonce})
	return e.b
}
