package registry

import (
	"net/netip"
	"testing"

	"meshd/state"
)

// TestProposals covers V9: of two nodes that ask each other at the same time,
// however their questions cross, the younger definition gives way and the older
// does not; one that stands gives way to nobody.
func TestProposals(t *testing.T) {
	t.Parallel()
	older := state.NetworkDef{Name: "red", Subnet4: netip.MustParsePrefix("10.85.0.0/16"), Birth: 3}
	younger := state.NetworkDef{Name: "blue", Subnet4: netip.MustParsePrefix("10.85.3.0/24"), Birth: 4}
	beside := state.NetworkDef{Name: "green", Subnet4: netip.MustParsePrefix("10.86.0.0/16"), Birth: 1}
	again := state.NetworkDef{Name: "red", Subnet4: older.Subnet4, Birth: 9}
	other := state.NetworkDef{Name: "red", Subnet4: beside.Subnet4, Birth: 2}
	for _, c := range []struct {
		name        string
		mine, ask   state.NetworkDef
		stood       bool
		told, gives bool
	}{
		{"the older asks", younger, older, false, false, true},
		{"the younger asks", older, younger, false, true, false},
		{"the older asks too late", younger, older, true, true, false},
		{"nothing in common", older, beside, false, false, false},
		{"the same definition", older, again, false, false, false},
		{"another definition of the name", older, other, false, false, true},
		{"the same, younger", other, older, false, true, false},
	} {
		var p proposal
		if p.against("b", &c.ask) != "" || p.finish() != "" {
			t.Errorf("%s: nothing is proposed", c.name)
		}
		p.begin(c.mine)
		if c.stood {
			p.finish()
		}
		for range 2 { // questions are repeated
			if told := p.against("b", &c.ask); (told != "") != c.told {
				t.Errorf("%s: who asks is told %q", c.name, told)
			}
		}
		if gives := p.finish(); (gives != "") != c.gives {
			t.Errorf("%s: it gives way to %q", c.name, gives)
		}
		p.end()
		if p.against("b", &c.ask) != "" {
			t.Errorf("%s: at the end something is proposed", c.name)
		}
	}
}
