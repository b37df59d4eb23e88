package state

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"
)

// C8: with nothing healthy all that is failing is served, and nothing else; DNS and
// balancing read the same.
func TestFailingTasksAreServedWithoutOthers(t *testing.T) {
	passing, starting, failing := HealthPassing, HealthStarting, HealthFailing
	for _, x := range []struct {
		what     string
		health   []Health
		draining []int // tasks that drain
		served   []string
		panics   bool
	}{
		{"one is healthy", []Health{passing, failing, failing}, nil, []string{"t0"}, false},
		{"none is", []Health{failing, failing, starting}, nil, []string{"t0", "t1"}, true},
		{"what is only starting is not served", []Health{starting, starting}, nil, nil, false},
		{"what drains is not served", []Health{failing, passing, failing}, []int{1, 2}, []string{"t0"}, true},
		{"nor if nothing else is there", []Health{failing}, []int{0}, nil, false},
	} {
		store := NewStore("a", 1, DefaultLimits(), new(testClock))
		table := store.Join("net")
		var changes []Change
		for i, h := range x.health {
			ip := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
			e := Endpoint{IP4: ip, Health: h, Draining: slices.Contains(x.draining, i)}
			changes = append(changes, Change{
				Kind: KindEndpoint, Key: "t" + strconv.Itoa(i), Group: "web", Body: string(AppendEndpoint(nil, &e)),
			})
		}
		if _, err := table.Commit(changes); err != nil {
			t.Fatal(err)
		}
		store.Publish(1)
		s := table.View().Service("web")
		members, preferred := s.Serving()
		for _, got := range []Members{members, s.Balanced()} {
			var ids []string
			for _, e := range got.All() {
				ids = append(ids, e.ID())
			}
			if !slices.Equal(ids, x.served) || preferred != len(x.served) {
				t.Errorf("%s: %v are served (%d of them first), want %v", x.what, ids, preferred, x.served)
			}
		}
		if s.DrainingMembers().Len() != len(x.draining) || s.Panicking() != x.panics {
			t.Errorf("%s: %d drain, panics: %v", x.what, s.DrainingMembers().Len(), s.Panicking())
		}
	}
}
