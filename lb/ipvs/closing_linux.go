package ipvs

import (
	"log/slog"
	"slices"

	"meshd/lb"
	"meshd/state"
)

// IPVS looks for a packet's mark before its port. So a service for all ports
// that only drains would go on taking, and refusing, what is meant for the
// services with ports that replace it: its mark is parked as soon as no backend
// takes new connections. Those that are open need no mark. Only TCP drains.
//
// A parked mark stays in the map, where no packet finds it: the next process
// knows whose service it is, and goes on with the drain.

// parkedProto is the protocol of parked marks: IANA reserves it, and IPVS
// balances none of its packets.
const parkedProto state.Proto = 255

// parking returns where the mark of a service is parked.
func parking(k lb.Key) lb.Key { return lb.Key{VIP: k.VIP, Proto: parkedProto} }

// served returns the service of an element of the mark map, parked or not.
func served(k lb.Key) lb.Key {
	if k.Proto == parkedProto {
		k.Proto = state.TCP
	}
	return k
}

// adoptMarks takes over what the mark map holds.
func (d *Driver) adoptMarks() {
	kernel := d.pools.Marks()
	all := make(map[lb.Key]uint32, len(kernel))
	for k, mark := range kernel {
		if _, both := kernel[served(k)]; both && k != served(k) {
			continue // somebody else's doing
		}
		all[served(k)] = mark
		if k != served(k) {
			d.parked[served(k)] = true
		}
	}
	d.marks.adopt(all)
}

// followClosing makes the mark map follow what the operations did to services
// for all ports.
func (a *application) followClosing() {
	var seen map[lb.Key]bool
	for i := range a.ops {
		op := &a.ops[i]
		if op.Kind == lb.SetPool || op.Kind == lb.DelPool || !op.Key.AllPorts() || op.Key.Proto != state.TCP || seen[op.Key] {
			continue
		}
		if seen == nil {
			seen = map[lb.Key]bool{}
		}
		seen[op.Key] = true
		if err := a.d.followOne(op.Key); err != nil {
			a.d.cfg.Log.Warn("the mark of a service for all ports is not as it should be",
				slog.String("service", op.Key.String()), slog.Any("error", err))
		}
	}
}

func (d *Driver) followOne(k lb.Key) error {
	s := d.known.Services[k]
	switch {
	case s == nil:
		delete(d.parked, k)
	case !closing(s) && d.parked[k]:
		return d.unpark(k)
	case closing(s) && !d.parked[k] && d.replaced(k):
		err := d.pools.MoveMark(k, parking(k))
		d.parked[k] = err == nil
		return err
	}
	return nil
}

// unpark makes packets get the mark of a service again. Should somebody have
// taken the parked one away, it is as before all the same.
func (d *Driver) unpark(k lb.Key) error {
	if err := d.pools.SetMarks(map[lb.Key]uint32{k: d.marks.byKey[k]}); err != nil {
		return err
	}
	delete(d.parked, k)
	return d.pools.DelMark(parking(k))
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
