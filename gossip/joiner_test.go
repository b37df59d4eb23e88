package gossip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meshd/state"
)

func testJoiner(peers []Peer, seeds ...string) *joiner {
	coords, err := newCoordinates("self")
	if err != nil {
		panic(err)
	}
	q := newMemberQueue()
	j := newJoiner(&HostConfig{Self: "self", Peers: peers, Join: seeds}, coords, &q, new(atomic.Bool))
	j.attach(netip.MustParseAddrPort("10.0.0.1:7946"), func([]byte) bool { return true }, [6]byte{1, 5, 2})
	return j
}

func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 7946)
}

// ended is what join does with its result.
func (j *joiner) ended(a string, now time.Time, delay time.Duration) {
	d := dialRequest{addr: a}
	if p, err := netip.ParseAddrPort(a); err == nil && j.dialsByAddr[p.Addr()] > 0 {
		d.from = p.Addr()
	}
	j.releaseSlot(d)
	t := j.attempts[a]
	t.running, t.last, t.delay, t.next = false, now, delay, now.Add(delay)
}

// dialled are the addresses that are due.
func dialled(j *joiner, now time.Time) (addrs []string) {
	due, _ := j.dueDials(now)
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
	if len(first) != searchWidth {
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
	j.requestJoin("h", addr(7))
	if got := dialled(j, now); !slices.Equal(got, []string{addr(7).String()}) {
		t.Errorf("dials %v", got)
	}
	j.ended(addr(0).String(), now, rejoinMax)
	j.requestJoin("a", addr(0))
	if got := dialled(j, now.Add(rejoinInterval)); !slices.Contains(got, addr(0).String()) {
		t.Errorf("dials %v", got)
	}
	j.setListed("b", addr(1))
	j.requestJoin("b", addr(1))
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
	j.setListed("a", addr(1))
	j.setListed("b", addr(2))
	j.requestJoin("a", addr(2))
	due, _ := j.dueDials(now)
	if want := (dialRequest{"a", addr(2).String(), addr(2).Addr()}); !slices.Equal(due, []dialRequest{want}) {
		t.Fatalf("dials %v", due)
	}
	j.ended(addr(2).String(), now, 0)
	j.requestAgain(due[0])
	if due, again := j.dueDials(now.Add(rejoinWanted / 4)); len(due) > 0 || again != rejoinWanted*3/4 {
		t.Errorf("dials %v at once, then after %v", due, again)
	}
	if got := dialled(j, now.Add(rejoinWanted)); len(got) != 1 {
		t.Errorf("dials %v", got)
	}
	j.ended(addr(2).String(), now, 0)
	j.setListed("a", addr(2))
	j.requestAgain(due[0])
	if got := dialled(j, now.Add(time.Hour)); len(got) > 0 || len(j.wanted) > 0 {
		t.Errorf("dials %v, which is listed", got)
	}
}

// TestJoinerShares: one host that answers on a thousand ports as a thousand names,
// and lets every dial hang, keeps neither others that answer nor the peers and
// seeds from being dialled.
func TestJoinerShares(t *testing.T) {
	now := time.Now()
	j := testJoiner([]Peer{{Name: "peer", Addr: addr(2), Seen: now}})
	for port := range uint16(2000) {
		j.requestJoin(state.NodeID(fmt.Sprintf("made-up-%d", port)), netip.AddrPortFrom(addr(9).Addr(), 1000+port))
	}
	j.requestJoin("honest", addr(1))
	for range 20 {
		j.dueDials(now) // nothing that is dialled ever ends
	}
	for _, a := range []netip.AddrPort{addr(1), addr(2)} {
		if d := j.attempts[a.String()]; d == nil || !d.running {
			t.Errorf("%v is not dialled", a)
		}
	}
	for i := range maxWanted / 64 {
		for port := range uint16(100) {
			j.requestJoin(state.NodeID(fmt.Sprintf("more-%d-%d", i, port)), netip.AddrPortFrom(addr(100+i).Addr(), port+1))
		}
	}
	if len(j.wanted) > maxWanted || j.wantedDials > wantedWidth || len(j.dialsByAddr) > wantedWidth {
		t.Errorf("%d wanted, %d dialled at %d addresses", len(j.wanted), j.wantedDials, len(j.dialsByAddr))
	}
}

// TestJoinerStrangers: where one host sends from many ports, others that send are
// noted, too.
func TestJoinerStrangers(t *testing.T) {
	j := testJoiner(nil)
	for port := range uint16(100) {
		j.onStranger(netip.AddrPortFrom(addr(9).Addr(), 1+port))
	}
	j.onStranger(addr(1))
	if _, noted := j.wanted[addr(1)]; !noted || len(j.wanted) != 1+wantedShare {
		t.Errorf("notes %v", j.wanted)
	}
}

// TestJoinerCounts: what is counted by address is what is there, however it goes.
func TestJoinerCounts(t *testing.T) {
	now := time.Now()
	j := testJoiner(nil)
	for i := range 20 {
		a := addr(i % 5)
		j.requestJoin("n", netip.AddrPortFrom(a.Addr(), uint16(1+i)))
	}
	j.setListed("n", netip.AddrPortFrom(addr(1).Addr(), 2))
	for range 20 {
		due, _ := j.dueDials(now)
		for i, d := range due {
			j.ended(d.addr, now, 0)
			if i%2 == 0 {
				j.requestAgain(d)
			}
		}
		now = now.Add(10 * time.Second)
	}
	for len(j.wanted) > 0 {
		due, _ := j.dueDials(now)
		for _, d := range due {
			j.ended(d.addr, now, 0)
		}
		now = now.Add(10 * time.Second)
	}
	if len(j.wantedByAddr)+len(j.dialsByAddr)+j.wantedDials+j.searchDials != 0 {
		t.Errorf("with nothing wanted: %v wait, %v are dialled, %d, %d",
			j.wantedByAddr, j.dialsByAddr, j.wantedDials, j.searchDials)
	}
}

func TestJoinerForgets(t *testing.T) {
	now := time.Now()
	j := testJoiner([]Peer{
		{Name: "old", Addr: addr(1), Seen: now.Add(-peerMemory - time.Hour)},
		{Name: "b", Addr: addr(2), Seen: now},
	})
	j.forgetPeer("b")
	if got := dialled(j, now); len(got) > 0 || len(j.peers) > 0 {
		t.Errorf("dials %v", got)
	}
	j.requestJoin("", addr(3))
	j.dueDials(now)
	j.ended(addr(3).String(), now, 0)
	j.dueDials(now.Add(time.Hour))
	if len(j.attempts) > 0 {
		t.Errorf("keeps %d attempts", len(j.attempts))
	}
}

func TestJoinErrorSaysWhatToDo(t *testing.T) {
	for text, hint := range map[string]string{
		"dial tcp: connection refused":                            "is meshd running there",
		"remote error: encryption is configured but state is not": "same --key-file",
		"dial tcp 10.0.0.9:7946: i/o timeout":                     "firewall",
		"No installed keys could decrypt the message":             "same --key-file",
	} {
		if err := joinError(errors.New(text)); !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v does not say %q", text, err, hint)
		}
	}
}
