package ipvs

import (
	"net/netip"
	"slices"

	"meshd/lb"
)

// IPVS looks for a packet's mark before its port. So a service for all ports
// that only drains would go on taking, and refusing, what is meant for the
// services with ports that replace it: its address loses its mark as soon as
// no backend takes new connections. Those that are open need no mark, and the
// service keeps its number until it is gone.

// followClosing makes the mark map follow what the operations did to services
// for all ports.
func (a *application) followClosing() {
	var seen map[netip.Addr]bool
	for i := range a.ops {
		op := &a.ops[i]
		if !op.Key.AllPorts() || op.Kind == lb.SetPool || op.Kind == lb.DelPool || seen[op.Key.VIP] {
			continue
		}
		if seen == nil {
			seen = map[netip.Addr]bool{}
		}
		seen[op.Key.VIP] = true
		if err := a.followOne(op.Key); err != nil {
			a.d.cfg.Log.Warn("mark of a service for all ports", "service", op.Key.String(), "err", err)
		}
	}
}

func (a *application) followOne(k lb.Key) error {
	s, id := a.d.known.Services[k], a.d.marks.byAddr[k.VIP]
	switch {
	case s == nil:
		delete(a.d.unmarked, k.VIP)
		return nil
	case !closing(s) && a.d.unmarked[k.VIP]:
		delete(a.d.unmarked, k.VIP)
		return a.d.help.SetMarks(map[netip.Addr]uint32{k.VIP: id})
	case closing(s) && !a.d.unmarked[k.VIP] && a.d.replaced(k):
		a.d.unmarked[k.VIP] = true
		return a.d.help.DelMark(k.VIP)
	}
	return nil
}

// closing reports whether a service has backends, and none of them takes new
// connections.
func closing(s *lb.Service) bool {
	return len(s.Backends) > 0 && !slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.Weight > 0 })
}

// replaced reports whether the address has services with ports.
func (d *Driver) replaced(k lb.Key) bool {
	for o := range d.known.Services {
		if o.VIP == k.VIP && !o.AllPorts() {
			return true
		}
	}
	return false
}
