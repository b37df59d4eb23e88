package gossip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// laden is a core with a large table, of many streams of others.
func laden(tb testing.TB) *Core {
	tb.Helper()
	a := testCore(tb, "a", "b", "c")
	for i := range 300 {
		owner := state.NodeID(fmt.Sprintf("n%03d", i))
		store := state.NewStore(owner, 1, state.DefaultLimits(), new(counter))
		table := store.Join("net")
		var cs []state.Change
		for k := range 40 {
			e := state.Endpoint{
				ID: fmt.Sprintf("t%d-%d", i, k), Service: "web",
				IP4: netip.AddrFrom4([4]byte{10, 1, byte(i), byte(k)}),
			}
			e.Normalize()
			cs = append(cs, state.Change{
				Kind: state.KindEndpoint, Key: e.ID, Group: e.Service,
				Body: string(state.AppendEndpoint(nil, &e)),
			})
		}
		if _, err := table.Commit(cs); err != nil {
			tb.Fatal(err)
		}
		if _, err := a.store.Apply(table.Delta(state.Want{Owner: owner}, 1<<20)); err != nil {
			tb.Fatal(err)
		}
	}
	a.Tick(5 * time.Second)
	a.Drain()
	return a
}

// want is a frame that asks for the streams of many owners, whole.
func want(e *encoder, owners int) {
	var ws []state.Want
	for i := range owners {
		ws = append(ws, state.Want{Owner: state.NodeID(fmt.Sprintf("n%03d", i))})
	}
	e.wants("net", ws)
}

func drained(c *Core) (packets, bytes int) {
	sends, _ := c.Drain()
	for _, s := range sends {
		bytes += len(s.Data)
	}
	return len(sends), bytes
}

// TestAnswersOfOnePacket: whatever the number of frames, and whatever they ask,
// one packet makes one Chunk go out (G13).
func TestAnswersOfOnePacket(t *testing.T) {
	head := state.OwnerHead{Owner: "zz", Head: state.Head{Inc: 1, Version: 9}}
	for name, f := range map[string]struct {
		write func(e *encoder)
		times int
	}{
		"wants":   {func(e *encoder) { want(e, 300) }, 200},
		"wants 1": {func(e *encoder) { want(e, 1) }, 20_000},
		"probe":   {func(e *encoder) { e.probe(frameProbe, probeFrame{tables: []tableHash{{networkHash("net"), 1}}}) }, 20_000},
		"heads":   {func(e *encoder) { e.heads(frameHeads, "net", 1, []int{0}, true, nil) }, 20_000},
		"hot":     {func(e *encoder) { e.heads(frameHot, "net", 0, nil, false, []state.OwnerHead{head}) }, 20_000},
		"summary": {func(e *encoder) { e.summary(summaryFrame{network: "net", hashes: make([]uint64, 256)}) }, 400},
		"ping":    {func(e *encoder) { e.ping(framePing, pingFrame{target: "a"}) }, 40_000},
		"call":    {func(e *encoder) { e.call(frameCall, callFrame{op: "sums"}) }, 40_000},
	} {
		t.Run(name, func(t *testing.T) {
			c := laden(t)
			e := newEncoder("b", 2)
			for range f.times {
				f.write(e)
			}
			c.Receive(6*time.Second, e.b[:min(len(e.b), maxPacket)])
			events := len(c.outbox.events)
			packets, bytes := drained(c)
			if bytes > c.cfg.Chunk+answerControl || packets > answerPackets || events > 100 {
				t.Errorf("%d bytes of questions made %d packets of %d bytes, and %d events", len(e.b), packets, bytes, events)
			}
			if c.Stats.FramesDropped == 0 && c.Stats.Malformed == 0 {
				t.Error("no frame was dropped, or it was not counted")
			}
		})
	}
}

// TestAnswersToOnePeer: packets of one peer, one after the other, are answered
// at a bounded rate, and so are those of made-up names; who asks after them has
// an answer.
func TestAnswersToOnePeer(t *testing.T) {
	c := laden(t)
	now := 6 * time.Second
	flood := func(packets int, from func(i int) state.NodeID) (bytes int) {
		for i := range packets {
			e := newEncoder(from(i), 2)
			want(e, 300)
			now += 100 * time.Microsecond
			c.Receive(now, e.b)
			_, b := drained(c)
			bytes += b
		}
		return bytes
	}
	most := func(r rate, d time.Duration) int {
		return int(r.bytes*(r.seconds+d.Seconds())) + c.cfg.Chunk + answerControl
	}
	if n := flood(1000, func(int) state.NodeID { return "b" }); n > most(peerRate, 100*time.Millisecond) {
		t.Errorf("one peer was answered with %d bytes", n)
	}
	dropped := c.Stats.FramesDropped
	if dropped == 0 {
		t.Error("nothing was dropped, or it was not counted")
	}
	if n := flood(1000, func(i int) state.NodeID { return state.NodeID(fmt.Sprintf("made-up-%d", i)) }); n > most(peerRate,
		100*time.Millisecond) {
		t.Errorf("made-up names were answered with %d bytes", n)
	}
	if n := flood(1, func(int) state.NodeID { return "c" }); n < 100_000 {
		t.Errorf("an honest peer was answered with %d bytes", n)
	}
	now += 5 * time.Second
	if n := flood(1, func(int) state.NodeID { return "b" }); n < 100_000 {
		t.Errorf("after a rest, the peer was answered with %d bytes", n)
	}
	for range 20 {
		now += time.Second
		c.Tick(now)
		c.Drain()
	}
	if n := len(c.outbox.budgets.peers); n > 0 {
		t.Errorf("%d budgets of silent peers are kept", n)
	}
}

// TestStrangersCostNothing: a name that neither the membership nor a table knows
// is no member.
func TestStrangersCostNothing(t *testing.T) {
	c := testCore(t, "a", "b")
	c.Drain()
	for i := range 5000 {
		e := newEncoder(state.NodeID(fmt.Sprintf("made-up-%d", i)), 2)
		e.ping(framePing, pingFrame{target: "a"})
		c.Receive(6*time.Second+time.Duration(i), e.b)
	}
	_, events := c.Drain()
	if len(c.roster.members) > 1 || len(events) > 0 || c.Stats.Strangers != 5000 {
		t.Errorf("%d members, %d events, %d strangers counted", len(c.roster.members), len(events), c.Stats.Strangers)
	}
}

// TestRefusedIsToldSeldom: bad deltas of one peer are told once in a while, with
// their number (G13).
func TestRefusedIsToldSeldom(t *testing.T) {
	c := testCore(t, "a", "b")
	c.Drain()
	told := 0
	now := 6 * time.Second
	for range 2100 { // 21 seconds
		e := newEncoder("b", 2)
		e.open(framePush)
		e.byte(0)
		e.delta(&state.Delta{
			Network: "net", Owner: "b", Inc: 1, To: 5, Upto: 5, Sum: 1, Snapshot: true,
			Records: []state.Record{{Kind: 99, Key: "lie", Version: 3}},
		})
		e.close()
		now += 10 * time.Millisecond
		c.Receive(now, e.b)
		_, events := c.Drain()
		for _, ev := range events {
			if ev.Kind == EventRefused {
				told++
			}
		}
	}
	if told != 3 || c.Stats.Refused != 2100 {
		t.Errorf("%d refusals were told %d times", c.Stats.Refused, told)
	}
}

// TestNoReflector: nobody makes this node send packets to addresses that it does
// not know, or many to one that it does (G13).
func TestNoReflector(t *testing.T) {
	c := testCore(t, "a", "b", "c")
	c.Drain()
	ask := func(from, target state.NodeID) []Send {
		e := newEncoder(from, 2)
		e.ping(frameAsk, pingFrame{target: target, addr: netip.MustParseAddrPort("192.0.2.1:53")})
		c.Receive(6*time.Second, e.b)
		sends, _ := c.Drain()
		return sends
	}
	for _, target := range []state.NodeID{"victim", "", "a"} {
		if sends := ask("b", target); len(sends) > 0 {
			t.Errorf("a ping of %q went to %v", target, sends[0].Addr)
		}
	}
	if sends := ask("stranger", "c"); len(sends) > 0 {
		t.Error("a stranger made us ping")
	}
	sent := 0
	for range 1000 {
		for _, s := range ask("b", "c") {
			if s.Addr != c.roster.members["c"].addr {
				t.Fatalf("went to %v, c is at %v", s.Addr, c.roster.members["c"].addr)
			}
			sent++
		}
	}
	if most := int(askedRate.packets * askedRate.seconds); sent == 0 || sent > most {
		t.Errorf("1000 requests made %d pings, at most %d", sent, most)
	}
	e := newEncoder("b", 2)
	e.ping(frameAck, pingFrame{target: "victim"})
	c.Receive(6*time.Second, e.b)
	if n, _ := drained(c); n > 0 {
		t.Errorf("an ack for an unknown node made %d packets", n)
	}
	if c.Stats.AsksDropped < 900 {
		t.Errorf("%d counted", c.Stats.AsksDropped)
	}
}

// TestPullsOfOnePeer: heads of streams that nobody has leave room to pull from
// others, and are asked for again in few packets.
func TestPullsOfOnePeer(t *testing.T) {
	c := testCore(t, "a", "b", "c")
	c.Drain()
	now := 6 * time.Second
	for k := range 40 {
		var hs []state.OwnerHead
		for j := range 500 {
			hs = append(hs, state.OwnerHead{
				Owner: state.NodeID(fmt.Sprintf("nobody-%d-%d", k, j)),
				Head:  state.Head{Inc: 1, Version: 9},
			})
		}
		e := newEncoder("b", 2)
		e.heads(frameHot, "net", 0, nil, false, hs)
		now += time.Microsecond
		c.Receive(now, e.b)
	}
	c.Drain()
	if _, pulls := c.Queued(); pulls > maxPullsAt {
		t.Errorf("%d pulls at one peer", pulls)
	}
	now += time.Second
	c.Tick(now)
	if packets, _ := drained(c); packets > 100 {
		t.Errorf("asked again with %d packets", packets)
	}
	for range 100 {
		now += time.Second
		c.Tick(now)
		c.Drain()
	}
	if len(c.pull.pulls) > 0 || len(c.pull.perPeer) > 0 {
		t.Errorf("%d pulls are left, at %d peers", len(c.pull.pulls), len(c.pull.perPeer))
	}
}

// TestSendsAreBounded: who does not drain a core does not let it grow.
func TestSendsAreBounded(t *testing.T) {
	c := laden(t)
	now := 6 * time.Second
	for i := range 400 {
		from := state.NodeID(fmt.Sprintf("p%d", i))
		c.MemberAlive(now, from, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}), 7946))
		e := newEncoder(from, 2)
		want(e, 300)
		now += time.Millisecond
		c.Receive(now, e.b)
	}
	if packets, bytes := drained(c); packets > maxSends || bytes > maxSendBytes {
		t.Errorf("%d packets of %d bytes wait", packets, bytes)
	}
	if c.Stats.SendsDropped == 0 && c.Stats.AnswersDropped == 0 && c.Stats.FramesDropped == 0 {
		t.Error("nothing was counted")
	}
}

// TestForgedNamesDrainNobody: G13. A peer that writes another's name on its
// questions, and so much that none of them is answered any more, takes nothing
// from those that come from where that other is.
func TestForgedNamesDrainNobody(t *testing.T) {
	a, b := testCore(t, "a", "b", "c"), testCore(t, "b", "a")
	exchange(a, b)
	now := 10 * time.Second
	a.Tick(now)
	a.Drain()
	e := newEncoder("b", 1)
	e.wants("net", []state.Want{{Owner: "a"}})
	answers := func(from string) int {
		a.ReceiveFrom(now, netip.AddrPortFrom(netip.MustParseAddr(from), 7946), e.b)
		sends, _ := a.Drain()
		return len(sends)
	}
	home := a.roster.members["b"].addr.Addr().String()
	for range 1 << 16 {
		if answers("10.66.6.6") == 0 {
			break
		}
	}
	if n := answers("10.66.6.6"); n != 0 {
		t.Fatalf("%d answers: the budget of the name has no end", n)
	}
	if n := answers(home); n != 1 {
		t.Errorf("%d answers to b itself", n)
	}
	for range 1 << 16 {
		if answers(home) == 0 {
			break
		}
	}
	if n := answers(home); n != 0 {
		t.Errorf("%d answers: the budget of an address has no end", n)
	}
	now += time.Minute
	a.Tick(now)
	a.Drain()
	if n := len(a.outbox.budgets.byAddress); n > 0 {
		t.Errorf("%d budgets of addresses are kept", n)
	}
}
