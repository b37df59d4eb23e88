package state

import (
	"net/netip"
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
