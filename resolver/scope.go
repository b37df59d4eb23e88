package resolver

// This file owns scopes: which networks exist for a client (R1).

import (
	"net/netip"
	"slices"
	"strings"
)

// clientScope says which networks exist for a client (R1). The zero value sees none.
type clientScope struct {
	// Networks are searched in order for names without a network.
	Networks []string
	// Host is the scope of an operator: every network of this node, by
	// qualified names only.
	Host bool
}

// sees reports whether names of the network may be answered.
func (s clientScope) sees(network string) bool {
	return s.Host || slices.Contains(s.Networks, network)
}

// String names the scope for people.
func (s clientScope) String() string {
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

// scopeOf returns the scope of a client on a shared listener by its address: the
// networks in which it is a task's, sorted by name, else host scope (R1). Safe for
// concurrent use.
func (z *zone) scopeOf(client netip.Addr) clientScope {
	client = client.Unmap().WithZone("")
	var s clientScope
	names, _ := z.Source.Networks()
	for _, n := range names {
		if v := z.Source.View(n); v != nil && v.ByIP(client).Endpoint != nil {
			s.Networks = append(s.Networks, n)
		}
	}
	s.Host = s.Networks == nil
	return s
}
