package registry

import (
	"fmt"
	"net/netip"

	"meshd/state"
)

// hasPoolFor reports whether a network has a pool of the address's family.
func hasPoolFor(def *state.NetworkDef, a netip.Addr) bool {
	return a.Is4() && def.Subnet4.IsValid() || a.Is6() && def.Subnet6.IsValid()
}

// withoutFamily says, for people, that a vip service has no VIP because its network has
// no pool of a family of its tasks (V12). If that is not so it returns "".
func withoutFamily(def *state.NetworkDef, s *state.Service) string {
	if s.Mode != state.ModeVIP || s.VIP4.IsValid() || s.VIP6.IsValid() || s.Members.Len() == 0 || def.Birth == 0 {
		return ""
	}
	for _, e := range s.Members.All() {
		if hasPoolFor(def, e.Addr4()) || hasPoolFor(def, e.Addr6()) {
			return ""
		}
	}
	return fmt.Sprintf("no task has an address of the family of the network's pool %s; the name is answered with the "+
		"tasks", PoolsText(*def))
}

// withoutFamily is withoutFamily with the definition that is in effect.
func (r *Registry) withoutFamily(s *state.Service) string {
	def := r.defOf(s.Network)
	return withoutFamily(&def, s)
}

// defOf returns the definition of a network that this node takes part in, else the zero
// definition.
func (r *Registry) defOf(network string) state.NetworkDef {
	if v := r.source().View(network); v != nil {
		return v.Def()
	}
	return state.NetworkDef{}
}

// familyWarnings names the addresses of a new task that get no connections through the
// VIP, because the network has no pool of their family.
func familyWarnings(def *state.NetworkDef, s *state.Service, e *state.Endpoint) []string {
	if s.Mode != state.ModeVIP || withoutFamily(def, s) != "" {
		return nil
	}
	var out []string
	for _, a := range []netip.Addr{e.IP4, e.IP6} {
		if a.IsValid() && !hasPoolFor(def, a) {
			out = append(out, fmt.Sprintf("no connections to the virtual IP reach %s: network %q has only the pool %s; use "+
				"--mode dnsrr, or a network with a pool of that family", a, def.Name, PoolsText(*def)))
		}
	}
	return out
}
