package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/state"
)

func TestEdge13TwoThatDoNotReachEachOther(t *testing.T) {
	flaps := 0
	s := newStage(t, 3, func(o *Options) {
		o.OnEvent = func(_ *Node, e gossip.Event) {
			if e.Kind == gossip.EventDead {
				flaps++
			}
		}
	})
	s.CutOff(0, 1, CutAll)
	s.CutOff(1, 0, CutAll)
	for k := range 50 {
		s.state(k%2, Endpoint(fmt.Sprintf("%s-x", s.Node(k%2).ID), "web", k))
		s.Run(200 * time.Millisecond)
	}
	s.equal(3 * time.Second)
	if flaps > 0 {
		t.Errorf("G11: %d nodes were hidden though a third reaches both", flaps)
	}
	s.Heal()
	s.Run(5 * time.Second)
	s.done()
}

func TestEdge14OneWayLoss(t *testing.T) {
	s := newStage(t, 6)
	for j := 1; j < 6; j++ {
		s.CutOff(0, j, CutDatagrams) // it hears, but is not heard
	}
	for k := range 30 {
		s.state(k%6, Endpoint(TaskID(s.Node(k%6), 0), "web", k))
		s.Run(200 * time.Millisecond)
	}
	s.Heal()
	s.equal(6 * time.Second)
	s.Run(5 * time.Second)
	s.done()
}

func TestEdge15NoSizeAtWhichSyncStops(t *testing.T) {
	t.Run("bytes", func(t *testing.T) { // more than memberlist's 20 MiB
		s := newStage(t, 3)
		big := strings.Repeat("x", 1000)
		for k := range 25 {
			var cs []state.Change
			for j := range 1000 {
				cs = append(cs, state.Change{Kind: 99, Key: fmt.Sprintf("%d-%d", k, j), Body: big})
			}
			s.state(0, cs...)
		}
		s.equal(10 * time.Second)
		s.Node(2).Crash(false)
		s.Run(10 * time.Second)
		s.Node(2).Start()
		s.equal(10 * time.Second)
		s.done()
	})
	t.Run("owners", func(t *testing.T) { // thousands of dead names
		s := newStage(t, 4)
		for k := range 3000 {
			id := state.NodeID(fmt.Sprintf("gone%04d-with-a-rather-long-name", k))
			src := state.NewStore(id, 1, state.DefaultLimits(), new(lamport))
			if _, err := src.Join("net").Commit([]state.Change{Endpoint(fmt.Sprintf("g%d", k), "old", k)}); err != nil {
				t.Fatal(err)
			}
			d := src.Table("net").Delta(state.Want{Owner: id}, 1<<20)
			s.Node(0).Do(func(time.Duration, *gossip.Core) {
				if _, err := s.Node(0).Store().Apply(d); err != nil {
					t.Fatal(err)
				}
			})
		}
		s.equal(10 * time.Second)
	})
}

func TestEdge16HalfIsolationHealsWithManyChanges(t *testing.T) {
	s := newStage(t, 20)
	s.Partition(func(i int) int { return i % 2 })
	for k := range 50 {
		for i := range 20 {
			s.state(i, many(s.Node(i), 50, k)...)
		}
		s.Run(400 * time.Millisecond)
	}
	s.Heal()
	s.equal(5 * time.Second)
	s.Run(8 * time.Second)
	s.done()
}

func TestEdge17ClockJumps(t *testing.T) {
	s := newStage(t, 6)
	s.state(0, many(s.Node(0), 5, 0)...)
	for i, d := range []time.Duration{time.Hour, -time.Hour, time.Minute} {
		s.Node(i).Jump(d)
		s.state(i, many(s.Node(i), 3, 10)...)
		s.equal(3 * time.Second)
	}
	s.Run(10 * time.Second)
	s.done()
}

func TestEdge18ManySyncsWithOnePeerAtOnce(t *testing.T) {
	s := newStage(t, 12)
	s.state(0, many(s.Node(0), 3000, 0)...)
	before := s.Node(0).Bytes
	s.equal(3 * time.Second)
	if sent, whole := s.Node(0).Bytes-before, uint64(3000*70); sent > 24*whole {
		t.Errorf("the owner sent %d bytes for a table of about %d to 11 peers", sent, whole)
	}
	s.done()
}

func TestEdge19OversizedEntryBlocksNothing(t *testing.T) {
	s := newStage(t, 4)
	if err := s.Node(0).Core.Commit(s.Node(0).now(), "net",
		[]state.Change{{Kind: 99, Key: "huge", Body: strings.Repeat("x", state.MaxBody+1)}}); err == nil {
		t.Error("G7: an oversized entry is not refused at the owner")
	}
	s.state(0, state.Change{Kind: 99, Key: "large", Body: strings.Repeat("x", state.MaxBody)})
	s.state(0, Endpoint("small", "web", 1))
	s.equal(time.Second)
	s.done()
}

func TestEdge20PoisonRecord(t *testing.T) {
	s := newStage(t, 4)
	s.state(0, Endpoint("good", "web", 1))
	s.equal(time.Second)
	src := state.NewStore("evil", 1, state.DefaultLimits(), new(lamport))
	if _, err := src.Join("net").Commit([]state.Change{
		{Kind: 99, Key: "p", Body: "\xff\xff\xff"},
		Endpoint("fine", "web", 2),
	}); err != nil {
		t.Fatal(err)
	}
	d := src.Table("net").Delta(state.Want{Owner: "evil"}, 1<<20)
	if _, err := s.Node(0).Store().Apply(d); err != nil {
		t.Fatal(err)
	}
	s.equal(3 * time.Second)
	for i := range 4 {
		if s.Node(i).Table("net").Len() < 3 {
			t.Errorf("G8: n%04d lacks the rest of a stream with a strange record", i)
		}
	}
}

// Edge case 21, key rotation in a partition, is about memberlist's keyring: see
// the tests of whole nodes.

func TestEdge22FlappingIsBounded(t *testing.T) {
	s := newStage(t, 10)
	s.Run(10 * time.Second)
	rate := func(d time.Duration) float64 {
		before := uint64(0)
		for _, n := range s.Nodes() {
			before += n.Bytes
		}
		begin := s.Now()
		s.Run(d)
		after := uint64(0)
		for _, n := range s.Nodes() {
			after += n.Bytes
		}
		return float64(after-before) / (s.Now() - begin).Seconds() / 10
	}
	for k := range 30 {
		s.After(time.Duration(k)*time.Second, func() {
			if k%2 == 0 {
				s.state(0, Endpoint("flap", "web", k))
			} else {
				s.state(0, Remove("flap"))
			}
		})
	}
	if r := rate(30 * time.Second); r > 4000 {
		t.Errorf("G7: one endpoint that flaps once a second costs %.0f B/s per node", r)
	}
	s.equal(3 * time.Second)
	for range 10 { // and a node that restarts all the time
		s.Node(1).Crash(true)
		s.Run(500 * time.Millisecond)
		s.Node(1).Start()
		s.Run(500 * time.Millisecond)
	}
	s.equal(3 * time.Second)
	s.Run(30 * time.Second)
	s.done()
}

func TestEdge23UnknownKindsAndFieldsAreCarried(t *testing.T) {
	s := newStage(t, 4)
	ch := Endpoint("new", "web", 1)
	ch.Body += "\xf0\x02hi" // a field of a later version
	s.state(0, ch, state.Change{Kind: 120, Key: "later", Body: "what is this"})
	s.equal(time.Second)
	heads := func() (hs string) {
		for i := range 4 {
			for _, o := range s.Node(i).Table("net").Owners() {
				h, _ := s.Node(i).Table("net").Head(o)
				hs += fmt.Sprint(h)
			}
		}
		return hs
	}
	before := heads()
	s.Run(20 * time.Second)
	if heads() != before {
		t.Error("S11: versions move though nobody writes")
	}
	for i := range 4 {
		if e := s.Node(i).Table("net").OwnerEntries("n0000", state.KindEndpoint); len(e) != 1 || e[0].Body() != ch.Body {
			t.Errorf("S11: n%04d lost the unknown field", i)
		}
	}
	s.done()
}

// TestRestartBlanksNothing: a daemon that restarts within the time of failure
// detection is not missed by anybody for a moment (S4, G11).
func TestRestartBlanksNothing(t *testing.T) {
	s := newStage(t, 8)
	s.state(0, many(s.Node(0), 50, 0)...)
	s.equal(time.Second)
	s.opt.OnStep = func(n *Node) {
		if n.index != 0 {
			if svc := n.Table("net").View().Service("s0"); svc == nil || svc.Balanced().Len() == 0 {
				t.Fatalf("%v: %s has no endpoint of s0", s.Now(), n.ID)
			}
		}
	}
	for range 5 {
		s.Node(0).Crash(true)
		s.Run(400 * time.Millisecond)
		s.Node(0).Start()
		s.Run(5 * time.Second)
	}
	s.done()
}
