package registry

import (
	"fmt"
	"slices"
	"strings"

	"meshd/state"
)

// maxDisputes is how many other definitions of one network disputeText names.
const maxDisputes = 4

// disputeText says that one network has two definitions (V6).
func disputeText(d state.NetworkDef, others []state.NetworkDef) string {
	var text strings.Builder
	text.WriteString("network " + d.Name + " is " + PoolsText(d) + " here; other nodes say ")
	for i, o := range others[:min(len(others), maxDisputes)] {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(PoolsText(o))
	}
	if left := len(others) - maxDisputes; left > 0 {
		fmt.Fprintf(&text, " and %d more", left)
	}
	return text.String() + " (each keeps its own until somebody runs meshctl network create with the right one on the " +
		"nodes that say otherwise)"
}

// networkTrouble says what is wrong with a network's definition, or "".
func networkTrouble(defs *state.Definitions, name string) string {
	var out []string
	if ds := defs.Disputes[name]; len(ds) > 0 {
		out = append(out, disputeText(defs.Effective[name], ds))
	}
	if older, ok := defs.Overlaps[name]; ok {
		out = append(out, "network "+name+" overlaps "+PoolsText(defs.Effective[older])+" of the older network "+older+
			": a node in both answers for "+name+" with its tasks (remove one of the two, and make it again with another pool)")
	}
	return strings.Join(out, "; ")
}

// PoolsText names the pools of a network for people.
func PoolsText(d state.NetworkDef) string {
	s := ""
	if d.Subnet4.IsValid() {
		s = d.Subnet4.String()
	}
	if d.Subnet6.IsValid() {
		if s != "" {
			s += " and "
		}
		s += d.Subnet6.String()
	}
	return s
}

// maxTroubles is how many networks Troubles names one by one.
const maxTroubles = 10

// Troubles says which networks are defined twice or overlap, those that this node
// takes part in first, and how many more there are.
func Troubles(defs *state.Definitions, joined []string) []string {
	var here, elsewhere []string
	for name := range defs.Effective {
		_, overlaps := defs.Overlaps[name]
		switch {
		case len(defs.Disputes[name]) == 0 && !overlaps:
		case slices.Contains(joined, name):
			here = append(here, name)
		default:
			elsewhere = append(elsewhere, name)
		}
	}
	slices.Sort(here)
	slices.Sort(elsewhere)
	names := append(here, elsewhere...)
	var out []string
	for _, name := range names[:min(len(names), maxTroubles)] {
		out = append(out, networkTrouble(defs, name))
	}
	if left := len(names) - maxTroubles; left > 0 {
		out = append(out, fmt.Sprintf("%d more networks are defined twice or overlap; meshctl network inspect NAME shows "+
			"what is said of one", left))
	}
	return out
}
