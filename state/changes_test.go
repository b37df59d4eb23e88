package state

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// Changes is what caches of a view are checked against: it must move with
// everything that a reader can see, and with nothing else.
func TestChangesGrowWithWhatReadersSee(t *testing.T) {
	a, _ := pair(DefaultLimits())
	v := a.View()
	for _, c := range []struct {
		what  string
		do    func()
		moves bool
	}{
		{"a commit that is not published", func() { commit(t, a, endpoint(t, "t1", "web", "10.0.0.1")) }, false},
		{"publish", func() { a.Publish(1) }, true},
		{"publish of nothing", func() { a.Publish(2) }, false},
		{"definition", func() { a.SetDef(NetworkDef{Name: a.Network(), Subnet4: netip.MustParsePrefix("10.9.0.0/24")}) }, true},
		{"first sync", a.SetSynced, true},
		{"second sync", a.SetSynced, false},
		{"liveness", func() { a.SetLiveness(a.self, Suspected); a.Publish(3) }, true},
	} {
		before := v.Changes()
		if c.do(); (v.Changes() > before) != c.moves {
			t.Errorf("%s: from %d to %d", c.what, before, v.Changes())
		}
	}
}

// ChangedSince names what changed between two counts, or says that it cannot.
func TestChangedSince(t *testing.T) {
	a, _ := pair(DefaultLimits())
	v := a.View()
	since := func(from uint64) (names []string, ok bool) {
		ok = v.ChangedSince(from, v.Changes(), func(n string) { names = append(names, n) })
		slices.Sort(names)
		return names, ok
	}
	begin := v.Changes()
	if names, ok := since(begin); !ok || names != nil {
		t.Errorf("nothing changed, but %q, %v", names, ok)
	}
	commit(t, a, endpoint(t, "t1", "web", "10.0.0.1"), endpoint(t, "t2", "db", "10.0.0.2"))
	a.Publish(1)
	middle := v.Changes()
	commit(t, a, endpoint(t, "t1", "web", "10.0.0.3"))
	a.Publish(2)
	a.SetSynced()
	if names, ok := since(begin); !ok || !slices.Equal(names, []string{"", "db", "web", "web"}) {
		t.Errorf("%q, %v", names, ok)
	}
	if names, ok := since(middle); !ok || !slices.Equal(names, []string{"", "web"}) {
		t.Errorf("%q, %v", names, ok)
	}
	var many []Change
	for i := range recentNames + 1 {
		many = append(many, endpoint(t, fmt.Sprint("m", i), fmt.Sprint("many", i), "10.0.0.9"))
	}
	commit(t, a, many...)
	a.Publish(3)
	if _, ok := since(middle); ok {
		t.Error("more names than are kept, and they are known")
	}
	middle = v.Changes()
	for i := range recentChanges + 1 {
		commit(t, a, endpoint(t, "t1", "web", fmt.Sprintf("10.0.1.%d", i%200+1)))
		a.Publish(4)
	}
	if _, ok := since(middle); ok {
		t.Error("more changes than are kept, and they are known")
	}
	if names, ok := since(middle + 1); !ok || len(names) != recentChanges {
		t.Errorf("%d names, %v", len(names), ok)
	}
}
