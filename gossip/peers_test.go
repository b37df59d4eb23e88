package gossip

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"

	"meshd/state"
)

func TestPeersFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	if ps, err := LoadPeers(path, time.Now()); err != nil || ps != nil {
		t.Fatalf("a missing file: %v, %v", ps, err)
	}
	seen := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := []Peer{{Name: "b", Addr: addr(2), Seen: seen}, {Name: "a", Addr: addr(1), Seen: seen}}
	text, err := EncodePeers(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := LoadPeers(path, seen.Add(time.Hour))
	slices.Reverse(want) // by name
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

// G2: a node is remembered once it has answered where it is listed; what others
// say of it is not.
func TestPeersThatAnsweredAreKept(t *testing.T) {
	var saved []Peer
	j := testJoiner(nil)
	j.save = func(ps []Peer) { saved = ps }
	j.setListed("c", addr(3))
	j.peerAnswered("c", addr(4))
	j.peerAnswered("d", addr(4))
	if j.savePeers(false); len(saved) != 0 {
		t.Errorf("of nodes that did not answer where they are listed, saved %v", saved)
	}
	j.peerAnswered("c", addr(3))
	j.savePeers(false)
	if len(saved) != 1 || saved[0].Name != "c" || saved[0].Addr != addr(3) {
		t.Errorf("saved %v", saved)
	}
	saved = nil
	j.peerAnswered("c", addr(3))
	if j.savePeers(false); saved != nil {
		t.Error("nothing new was saved again")
	}
	j.forgetPeer("c")
	if j.savePeers(false); len(saved) != 0 {
		t.Errorf("after it left: %v", saved)
	}
}

// What is kept of nodes is bounded, whatever the membership lists.
func TestJoinerIsBounded(t *testing.T) {
	j := testJoiner(nil)
	for i := range maxPeers + 10 {
		id, a := state.NodeID(fmt.Sprintf("n%d", i)),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 7946)
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

// What the daemon cannot have written is refused, with the name of the file.
func TestPeersFileCorrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	for _, text := range []string{
		"[{", `{}`, `[{"name":"a","addr":"10.0.0.1:0"}]`, `[{"name":"a","addr":"0.0.0.0:1"}]`,
		`[{"name":"","addr":"10.0.0.1:1"}]`,
		`[{"name":"a","addr":"10.0.0.1:1"},{"name":"a","addr":"10.0.0.2:1"}]`, `[{"name":"a b","addr":"10.0.0.1:1"}]`,
		"[" + strings.Repeat(`{"name":"a","addr":"10.0.0.1:1"},`, maxPeers) + `{"name":"b","addr":"10.0.0.1:1"}]`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if ps, err := LoadPeers(path, time.Now()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%.60s: %v, %v", text, ps, err)
		}
	}
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
