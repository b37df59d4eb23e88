package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"meshd/mesh/control"
	"meshd/state"
)

// hasPoolFor reports whether a network has a pool of the address's family.
func hasPoolFor(def *state.NetworkDef, a netip.Addr) bool {
	return a.Is4() && def.Subnet4.IsValid() || a.Is6() && def.Subnet6.IsValid()
}

// withoutFamily says that a vip service has no VIP since its network has no pool
// of any family of its tasks, or "" (V12).
func withoutFamily(def *state.NetworkDef, s *state.Service) string {
	if s.Mode != state.ModeVIP || s.VIP4.IsValid() || s.VIP6.IsValid() || len(s.Members) == 0 || def.Birth == 0 {
		return ""
	}
	for _, e := range s.Members {
		if hasPoolFor(def, e.Addr4()) || hasPoolFor(def, e.Addr6()) {
			return ""
		}
	}
	return fmt.Sprintf("no task has an address of the family of the network's pool %s; the name is answered with the tasks", pools(*def))
}

// withoutFamily is the same by the network's definition.
func (n *Node) withoutFamily(s *state.Service) string {
	def := n.defOf(s.Network)
	return withoutFamily(&def, s)
}

// defOf returns the definition of a network that this node takes part in, or the
// zero definition.
func (n *Node) defOf(network string) state.NetworkDef {
	if v := n.host.Source().View(network); v != nil {
		return v.Def()
	}
	return state.NetworkDef{}
}

// familyWarnings says of which addresses of a new task the service's VIP knows
// nothing, since the network has no pool of their family.
func familyWarnings(def *state.NetworkDef, s *state.Service, e *state.Endpoint) []string {
	if s.Mode != state.ModeVIP || withoutFamily(def, s) != "" {
		return nil
	}
	var out []string
	for _, a := range []netip.Addr{e.IP4, e.IP6} {
		if a.IsValid() && !hasPoolFor(def, a) {
			out = append(out, fmt.Sprintf("no connections to the virtual IP reach %s: network %q has only the pool %s; use "+
				"--mode dnsrr, or a network with a pool of that family", a, def.Name, pools(*def)))
		}
	}
	return out
}

// vipEvents are what happened to the addresses of a service: some came, some
// went, or one took the place of another.
func vipEvents(was, is []netip.Addr) (e control.Event, t control.EventType) {
	came, went := without(is, was), without(was, is)
	switch {
	case len(came)+len(went) == 0:
		return e, ""
	case len(went) == 0:
		return control.Event{Addresses: came}, control.EventVIPAssigned
	case len(came) == 0:
		return control.Event{Addresses: went}, control.EventVIPReleased
	}
	texts := make([]string, len(went))
	for i, a := range went {
		texts[i] = a.String()
	}
	return control.Event{Addresses: is, Detail: "was " + strings.Join(texts, ", ")}, control.EventVIPMoved
}

// without returns what of all is not in some.
func without(all, some []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return slices.Contains(some, a) })
}
