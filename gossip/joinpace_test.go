package gossip

import (
	"testing"
	"time"

	"meshd/state"
)

// TestJoinsAreRationed: G20. A node that lists half of those whom it remembers dials two
// of the others a second, and one that lists fewer dials as many as it may.
func TestJoinsAreRationed(t *testing.T) {
	now := time.Now()
	var peers []Peer
	for i := range 2 * largeBook {
		peers = append(peers, Peer{Name: state.NodeID([]rune{'a', rune('0' + i)}), Addr: addr(i), Seen: now})
	}
	j := testJoiner(peers)
	for i := range largeBook - 1 {
		j.setListed(peers[i].Name, peers[i].Addr)
	}
	if n := len(dialled(j, now)); n != searchWidth {
		t.Fatalf("with less than half it dials %d", n)
	}
	for _, a := range j.missingAddrs(now) {
		if j.attempts[a] != nil {
			j.ended(a, now, time.Hour)
		}
	}
	j.setListed(peers[largeBook].Name, peers[largeBook].Addr)
	dials := 0
	for range 20 {
		now = now.Add(searchPace / 2)
		for _, a := range dialled(j, now) {
			j.ended(a, now, time.Hour)
			dials++
		}
	}
	if most := 2 * (20/4 + 2); dials == 0 || dials > most {
		t.Errorf("with half of them it dials %d in five seconds, at most %d are right", dials, most)
	}
}
