package registry

import (
	"strings"

	"meshd/state"
)

// retreating is the suffix of the key of a claim on an address that a service leaves
// (V5). Such a claim ends in half a minute and is not saved.
const retreating = "~"

// claimsOf copies the claims and settings that this node states in a network.
func claimsOf(t *state.Table) map[string]*savedClaim {
	have := map[string]*savedClaim{}
	for _, kind := range []state.Kind{state.KindVIP, state.KindSettings} {
		for _, e := range t.Own(kind) {
			if strings.HasSuffix(e.Key(), retreating) {
				continue
			}
			s := have[e.Key()]
			if s == nil {
				s = &savedClaim{}
				have[e.Key()] = s
			}
			if kind == state.KindVIP {
				s.vip = []byte(e.Body())
			} else {
				s.settings = []byte(e.Body())
			}
		}
	}
	return have
}

// keepClaims replaces the claims of a network's services by what the node states.
func (d *draft) keepClaims(network string, have map[string]*savedClaim) {
	l := d.networks[network]
	if l == nil {
		return
	}
	for s, c := range have {
		if old := l.services.at(s); old != nil {
			c.until = old.until
		}
	}
	d.setServices(network, have)
}
