package gossip

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"

	"meshd/state"
)

func testJoiner(peers []Peer, seeds ...string) *joiner {
	h := &Host{cfg: HostConfig{Self: "self", Peers: peers, Join: seeds}, core: &Core{cfg: CoreConfig{Addr: netip.MustParseAddrPort("10.0.0.1:7946")}}}
	h.coord, _ = coordinate.NewClient(coordinate.DefaultConfig())
	h.joiner.init(h)
	return &h.joiner
}

func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 7946)
}

// ended is what join does with its result.
func (j *joiner) ended(a string, now time.Time, delay time.Duration) {
	j.dialing--
	t := j.tries[a]
	t.running, t.last, t.delay, t.next = false, now, delay, now.Add(delay)
}

// dialled are the addresses that are due.
func dialled(j *joiner, now time.Time) (addrs []string) {
	due, _ := j.due(now)
	for _, d := range due {
		addrs = append(addrs, d.addr)
	}
	return addrs
}

func TestJoinerPace(t *testing.T) {
	now := time.Now()
	var peers []Peer
	for i := range 10 {
		peers = append(peers, Peer{Name: state.NodeID(rune('a' + i)), Addr: addr(i), Seen: now})
	}
	j := testJoiner(append(peers, Peer{Name: "self", Addr: addr(99), Seen: now}), "10.0.0.1:7946", "seed:7946")
	first := dialled(j, now)
	if len(first) != rejoinWidth {
		t.Fatalf("dials %v at once", first)
	}
	if more := dialled(j, now); len(more) != 0 {
		t.Fatalf("dials %v on top", more)
	}
	for _, a := range first {
		j.ended(a, now, rejoinMax)
	}
	second := dialled(j, now)
	for _, a := range second {
		if slices.Contains(first, a) || a == "10.0.0.1:7946" || a == addr(99).String() {
			t.Errorf("dials %s too early, or itself", a)
		}
		j.ended(a, now, rejoinMax)
	}
	third := dialled(j, now)
	if all := append(append(first, second...), third...); len(all) != 11 || !slices.Contains(all, "seed:7946") {
		t.Errorf("of ten peers and a seed, dialled %v", all)
	}
}

// TestJoinerWanted: one that answers is not made to wait for dials in vain, nor
// by what is known of former attempts.
func TestJoinerWanted(t *testing.T) {
	now := time.Now()
	var peers []Peer
	for i := range 4 {
		peers = append(peers, Peer{Name: state.NodeID(rune('a' + i)), Addr: addr(i), Seen: now})
	}
	j := testJoiner(peers)
	if n := len(dialled(j, now)); n != 4 {
		t.Fatal(n)
	}
	j.want("h", addr(7))
	if got := dialled(j, now); !slices.Equal(got, []string{addr(7).String()}) {
		t.Errorf("dials %v", got)
	}
	j.ended(addr(0).String(), now, rejoinMax)
	j.want("a", addr(0))
	if got := dialled(j, now.Add(rejoinEvery)); !slices.Contains(got, addr(0).String()) {
		t.Errorf("dials %v", got)
	}
	j.list("b", addr(1))
	j.want("b", addr(1))
	j.ended(addr(1).String(), now, 0)
	if got := dialled(j, now.Add(time.Hour)); slices.Contains(got, addr(1).String()) || len(j.wanted) > 0 {
		t.Errorf("dials %v, which is listed", got)
	}
}

// TestJoinerSwapped: one that answers where the membership lists another is
// dialled, and soon again for as long as it is another.
func TestJoinerSwapped(t *testing.T) {
	now := time.Now()
	j := testJoiner(nil)
	j.list("a", addr(1))
	j.list("b", addr(2))
	j.want("a", addr(2))
	due, _ := j.due(now)
	if want := (dial{"a", addr(2).String()}); !slices.Equal(due, []dial{want}) {
		t.Fatalf("dials %v", due)
	}
	j.ended(addr(2).String(), now, 0)
	j.wantAgain(due[0])
	if due, again := j.due(now.Add(rejoinWant / 4)); len(due) > 0 || again != rejoinWant*3/4 {
		t.Errorf("dials %v at once, then after %v", due, again)
	}
	if got := dialled(j, now.Add(rejoinWant)); len(got) != 1 {
		t.Errorf("dials %v", got)
	}
	j.ended(addr(2).String(), now, 0)
	j.list("a", addr(2))
	j.wantAgain(due[0])
	if got := dialled(j, now.Add(time.Hour)); len(got) > 0 || len(j.wanted) > 0 {
		t.Errorf("dials %v, which is listed", got)
	}
}

func TestJoinerForgets(t *testing.T) {
	now := time.Now()
	j := testJoiner([]Peer{{Name: "old", Addr: addr(1), Seen: now.Add(-peerMemory - time.Hour)}, {Name: "b", Addr: addr(2), Seen: now}})
	j.forget("b")
	if got := dialled(j, now); len(got) > 0 || len(j.peers) > 0 {
		t.Errorf("dials %v", got)
	}
	j.want("", addr(3))
	j.due(now)
	j.ended(addr(3).String(), now, 0)
	j.due(now.Add(time.Hour))
	if len(j.tries) > 0 {
		t.Errorf("keeps %d attempts", len(j.tries))
	}
}

func TestJoinErrorSaysWhatToDo(t *testing.T) {
	for text, hint := range map[string]string{
		"dial tcp: connection refused":                            "is meshd running there",
		"remote error: encryption is configured but state is not": "same --key-file",
		"No installed keys could decrypt the message":             "same --key-file",
	} {
		if err := joinError(errors.New(text)); !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v does not say %q", text, err, hint)
		}
	}
}
