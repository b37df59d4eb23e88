package gossip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"

	"meshd/state"
)

// encoded returns the two files of peers, with changes in the log.
func encoded(t *testing.T, ps []Peer, changes ...PeerChange) (file, log []byte) {
	t.Helper()
	file, log, err := EncodePeers(ps)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := EncodePeerChanges(changes)
	if err != nil {
		t.Fatal(err)
	}
	return file, append(log, lines...)
}

var peersSeen = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// What is written is read again: the peers file, and what changed since.
func TestPeersFile(t *testing.T) {
	a, b := Peer{Name: "a", Addr: addr(1), Seen: peersSeen}, Peer{Name: "b", Addr: addr(2), Seen: peersSeen}
	moved := Peer{Name: "b", Addr: addr(3), Seen: peersSeen.Add(time.Minute)}
	file, log := encoded(t, []Peer{b, a}, PeerChange{Peer: moved}, PeerChange{Peer: Peer{Name: "a"}, Gone: true},
		PeerChange{Peer: Peer{Name: "c", Addr: addr(4), Seen: peersSeen}})
	for _, tt := range []struct {
		log  []byte
		want []Peer
	}{
		{nil, []Peer{a, b}},
		{log, []Peer{moved, {Name: "c", Addr: addr(4), Seen: peersSeen}}},
	} {
		got, damaged, err := DecodePeers(file, tt.log, peersSeen.Add(time.Hour))
		if err != nil || damaged != 0 || !slices.Equal(got, tt.want) {
			t.Errorf("got %v, %d damaged, %v", got, damaged, err)
		}
	}
	empty, _ := encoded(t, nil)
	if got, _, err := DecodePeers(empty, nil, peersSeen); err != nil || len(got) != 0 {
		t.Errorf("of no peers: %v, %v", got, err)
	}
	// An earlier version has written the peers file since, and knows no log.
	other, _ := encoded(t, []Peer{a})
	if got, damaged, err := DecodePeers(other, log, peersSeen); err != nil || damaged != 0 ||
		!slices.Equal(got, []Peer{a}) {
		t.Errorf("with the log of another file: %v, %d damaged, %v", got, damaged, err)
	}
}

// A log that breaks off anywhere, or of which any byte is another one, costs no more than
// the lines that are not whole, and makes up nobody.
func TestPeersLogDamaged(t *testing.T) {
	base := []Peer{{Name: "a", Addr: addr(1), Seen: peersSeen}}
	var changes []PeerChange
	real := map[Peer]bool{base[0]: true}
	for i := range 20 {
		p := Peer{Name: state.NodeID(fmt.Sprint("n", i)), Addr: addr(i + 2), Seen: peersSeen}
		changes, real[p] = append(changes, PeerChange{Peer: p}), true
	}
	file, log := encoded(t, base, changes...)
	check := func(what string, log []byte, atLeast, maxDamaged int) {
		got, damaged, err := DecodePeers(file, log, peersSeen)
		if err != nil || len(got) < atLeast || damaged > maxDamaged {
			t.Fatalf("%s: %d peers, %d damaged, %v", what, len(got), damaged, err)
		}
		for _, p := range got {
			if !real[p] {
				t.Fatalf("%s: made up %v", what, p)
			}
		}
	}
	_, head := encoded(t, base)
	for n := range log {
		whole := 1 + max(0, strings.Count(string(log[:n]), "\n")-1)
		check(fmt.Sprintf("the first %d bytes", n), log[:n], whole, 0)
	}
	for at := range log {
		text := slices.Clone(log)
		text[at] ^= 0x15
		least := 19 // a byte that joins two lines costs both
		if at < len(head) {
			least = 1
		}
		check(fmt.Sprintf("byte %d", at), text, least, 2)
	}
	check("zeros at its end", append(slices.Clone(log), make([]byte, 5000)...), 21, 0)
	check("a line without end", append(append(slices.Clone(log), strings.Repeat("x", 1<<20)...), '\n'), 21, 1)
}

// What a log says passes the checks of the peers file.
func TestPeersLogHostile(t *testing.T) {
	a := Peer{Name: "a", Addr: addr(1), Seen: peersSeen}
	for name, c := range map[string]PeerChange{
		"a name":        {Peer: Peer{Name: "a b", Addr: addr(2), Seen: peersSeen}},
		"no name":       {Peer: Peer{Addr: addr(2), Seen: peersSeen}},
		"a long name":   {Peer: Peer{Name: state.NodeID(strings.Repeat("x", maxPeerLine)), Addr: addr(2)}},
		"no address":    {Peer: Peer{Name: "b", Seen: peersSeen}},
		"port 0":        {Peer: Peer{Name: "b", Addr: netip.MustParseAddrPort("10.0.0.1:0")}},
		"any address":   {Peer: Peer{Name: "b", Addr: netip.MustParseAddrPort("0.0.0.0:1")}},
		"a multicast":   {Peer: Peer{Name: "b", Addr: netip.MustParseAddrPort("224.0.0.1:1")}},
		"another's end": {Peer: Peer{Name: "b"}, Gone: false},
	} {
		file, log := encoded(t, []Peer{a}, c)
		if got, damaged, err := DecodePeers(file, log, peersSeen); err != nil || damaged != 1 ||
			!slices.Equal(got, []Peer{a}) {
			t.Errorf("%s: %v, %d damaged, %v", name, got, damaged, err)
		}
	}
}

// G2: a node is remembered once it has answered where it is listed; what others
// say of it is not.
func TestPeersThatAnsweredAreKept(t *testing.T) {
	var saved []PeerChange
	calls, refuse := 0, error(nil)
	j := testJoiner(nil)
	j.save = func(changes []PeerChange, _ func() []Peer) error {
		calls++
		if refuse == nil {
			saved = changes
		}
		return refuse
	}
	j.setListed("c", addr(3))
	j.peerAnswered("c", addr(4))
	j.peerAnswered("d", addr(4))
	if j.savePeers(false); calls != 0 {
		t.Errorf("of nodes that did not answer where they are listed, saved %v", saved)
	}
	j.peerAnswered("c", addr(3))
	refuse = errors.New("no space")
	j.savePeers(false)
	refuse = nil
	if j.savePeers(false); calls != 2 || len(saved) != 1 || saved[0].Name != "c" || saved[0].Addr != addr(3) ||
		saved[0].Gone {
		t.Errorf("after a failure: %d calls, saved %v", calls, saved)
	}
	j.peerAnswered("c", addr(3))
	if j.savePeers(false); calls != 2 {
		t.Error("nothing new was saved again")
	}
	j.forgetPeer("c")
	if j.savePeers(false); calls != 3 || len(saved) != 1 || saved[0].Name != "c" || !saved[0].Gone {
		t.Errorf("after it left: %v", saved)
	}
}

// A change hands over what changed, however many peers there are; too many changes, and
// the end, hand over all.
func TestPeersAreHandedOverByChange(t *testing.T) {
	j := testJoiner(nil)
	var got []PeerChange
	var all int
	refuse := error(nil)
	j.save = func(changes []PeerChange, list func() []Peer) error {
		got, all = changes, 0
		if changes == nil {
			all = len(list())
		}
		return refuse
	}
	answer := func(i int) {
		id := state.NodeID(fmt.Sprintf("n%d", i))
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 7946)
		j.setListed(id, a)
		j.peerAnswered(id, a)
	}
	for i := range maxUnsaved + 1 {
		answer(i)
	}
	refuse = errors.New("no space")
	j.savePeers(false)
	refuse = nil
	if j.savePeers(false); got != nil || all != maxUnsaved+1 {
		t.Errorf("%d changes, %d in all", len(got), all)
	}
	answer(maxUnsaved + 1)
	if j.savePeers(false); len(got) != 1 || got[0].Name != state.NodeID(fmt.Sprint("n", maxUnsaved+1)) {
		t.Errorf("after one more: %d changes, %d in all", len(got), all)
	}
	if j.savePeers(true); got != nil || all != maxUnsaved+2 {
		t.Errorf("at the end: %d changes, %d in all", len(got), all)
	}
}

// Status tells from four fifths of the bound on.
func TestPeersFull(t *testing.T) {
	room := testJoiner(nil).room()
	if room.Held = maxPeers/5*4 - 1; room.Full() != "" {
		t.Error("told too early")
	}
	if room.Held++; !strings.Contains(room.Full(), "160000 of at most 200000 nodes are remembered") {
		t.Errorf("told %q", room.Full())
	}
}

// What is kept of nodes is bounded, whatever the membership lists.
func TestJoinerIsBounded(t *testing.T) {
	j := testJoiner(nil)
	for i := range maxPeers + 10 {
		id, a := state.NodeID(fmt.Sprintf("n%d", i)),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 7946)
		j.setListed(id, a)
		j.peerAnswered(id, a)
		j.updateCoordinate(id, coordinate.NewCoordinate(coordinate.DefaultConfig()), time.Millisecond)
		j.requestJoin("", a)
	}
	for i := range maxPeers + 10 {
		j.setListed(state.NodeID(fmt.Sprintf("n%d", i)), netip.AddrPort{})
	}
	if len(j.peers) > maxPeers || len(j.coords.of) > 0 || len(j.wanted) > maxWanted || len(j.listed) > 0 {
		t.Errorf("keeps %d peers, %d coordinates, %d wanted, %d listed", len(j.peers), len(j.coords.of), len(j.wanted),
			len(j.listed))
	}
}

// What the daemon cannot have written is refused.
func TestPeersFileCorrupted(t *testing.T) {
	for _, text := range []string{
		"", "[{", `{}`, `null`, `[]x`, `[{"name":"a","addr":"10.0.0.1:0"}]`, `[{"name":"a","addr":"0.0.0.0:1"}]`,
		`[{"name":"","addr":"10.0.0.1:1"}]`, strings.Repeat("[", 1<<20),
		`[{"name":"a","addr":"10.0.0.1:1"},{"name":"a","addr":"10.0.0.2:1"}]`, `[{"name":"a b","addr":"10.0.0.1:1"}]`,
	} {
		if ps, _, err := DecodePeers([]byte(text), nil, time.Now()); err == nil {
			t.Errorf("%.60s: %v", text, ps)
		}
	}
	var many strings.Builder
	for i := range maxPeers + 1 {
		fmt.Fprintf(&many, `,{"name":"n%d","addr":"10.0.0.1:1"}`, i)
	}
	if _, _, err := DecodePeers([]byte("["+many.String()[1:]+"]"), nil, time.Now()); err == nil ||
		!strings.Contains(err.Error(), "more than 200000 peers") {
		t.Error(err)
	}
}

// BenchmarkPeerChange is what one change of 10,000 peers takes until it can be written.
func BenchmarkPeerChange(b *testing.B) {
	j := testJoiner(nil)
	bytes := 0
	j.save = func(changes []PeerChange, _ func() []Peer) error {
		lines, err := EncodePeerChanges(changes)
		bytes += len(lines)
		return err
	}
	answer := func(i int) {
		id, a := state.NodeID(fmt.Sprintf("n%d", i)), addr(i%200+1)
		j.setListed(id, a)
		j.peerAnswered(id, a)
	}
	for i := range 10_000 {
		answer(i)
	}
	j.savePeers(false)
	bytes = 0
	for i := 0; b.Loop(); i++ {
		j.forgetPeer(state.NodeID(fmt.Sprintf("n%d", i%10_000)))
		j.savePeers(false)
		answer(i % 10_000)
	}
	b.ReportMetric(float64(bytes)/float64(b.N), "B/change")
}

// A host that starts with a wrong clock forgets nobody, and tries them in the
// order of before.
func TestPeersSurviveClocks(t *testing.T) {
	seen := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, now := range map[string]time.Time{
		"a minute later": seen.Add(time.Minute),
		"in 1970":        time.Unix(60, 0),
		"a year ahead":   seen.AddDate(1, 0, 0),
		"a minute back":  seen.Add(-time.Minute),
	} {
		for _, p := range plausible([]Peer{{Name: "a", Seen: seen}, {Name: "b", Seen: seen.Add(-time.Hour)}}, now) {
			if age := now.Sub(p.Seen); age < 0 || age > 2*time.Hour {
				t.Errorf("%s: %s was seen %v ago", name, p.Name, age)
			}
		}
	}
}
