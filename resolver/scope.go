package resolver

import (
	"net/netip"
	"slices"
	"strings"
)

// Scope says which networks exist for a client (R1). The zero Scope sees none.
type Scope struct {
	// Networks are searched in order for names without a network.
	Networks []string
	// Host is the scope of an operator: every network of this node, by
	// qualified names only.
	Host bool
}

// sees reports whether names of the network may be answered.
func (s Scope) sees(network string) bool {
	return s.Host || slices.Contains(s.Networks, network)
}

// String names the scope for people.
func (s Scope) String() string {
	switch {
	case s.Host:
		return "host: every network of this node, by qualified names"
	case len(s.Networks) == 0:
		return "none: the client is on no network of this node"
	}
	var text strings.Builder
	text.WriteString("networks ")
	for i, n := range s.Networks {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(n)
	}
	return text.String()
}

// ScopeOf tells the scope of a client on a shared listener by its address: the
// networks in which it is a task's, sorted by name, else host scope (R1). Safe for
// concurrent use.
func (z *Zone) ScopeOf(client netip.Addr) Scope {
	client = client.Unmap().WithZone("")
	var s Scope
	names, _ := z.Source.Networks()
	for _, n := range names {
		if v := z.Source.View(n); v != nil && v.ByIP(client).Endpoint != nil {
			s.Networks = append(s.Networks, n)
		}
	}
	s.Host = s.Networks == nil
	return s
}
