package gossip_test

import "testing"

// TestWhoAnsweredAJoinIsListed: when a join ends, the membership lists who answered
// it; the core is told of that behind it.
func TestWhoAnsweredAJoinIsListed(t *testing.T) {
	a, b := startHost(t, "a", nil), startHost(t, "b", nil)
	for _, r := range b.Join(t.Context(), []string{a.Addr().String()}) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if got := b.Membership(); len(got) != 2 {
		t.Errorf("the membership lists %v", got)
	}
}
