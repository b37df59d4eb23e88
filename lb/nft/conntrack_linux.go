package nft

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"meshd/lb"
	"meshd/state"
)

// flowKey identifies the connections of one backend of one service in
// conntrack: original destination, and source of the replies.
type flowKey struct {
	vip     netip.AddrPort // port 0: any
	proto   state.Proto
	backend netip.AddrPort // port 0: any
}

// flows is a set of connections to delete. The zero value is empty.
type flows struct {
	keys map[flowKey]struct{}
}

// add adds the connections of one backend of a service.
func (f *flows) add(k lb.Key, backend netip.AddrPort) {
	if f.keys == nil {
		f.keys = map[flowKey]struct{}{}
	}
	f.keys[flowKey{vip: netip.AddrPortFrom(k.VIP, k.Port), proto: k.Proto, backend: backend}] = struct{}{}
}

func (f *flows) join(o *flows) {
	if f.keys == nil {
		f.keys = map[flowKey]struct{}{}
	}
	maps.Copy(f.keys, o.keys)
}

// has reports whether a connection is in the set: one of a service for all ports is
// not, if a service with its port holds it (held; nil: none does).
func (f *flows) has(of *flow, held func(flowKey) bool) bool {
	exact, wide := of.keys()
	_, ok := f.keys[exact]
	if !ok {
		_, ok = f.keys[wide]
		ok = ok && (held == nil || !held(exact))
	}
	return ok
}

// delete removes the connections from conntrack, but for those that are held.
func (f *flows) delete(c conntracker, held func(flowKey) bool) error {
	var errs []error
	for i := range families {
		family := families[i].nfproto
		found, err := survey(c, i, f.vips(i), func(names *[]flowName, of *flow, name func() flowName) {
			if f.has(of, held) {
				*names = append(*names, name())
			}
		})
		errs = append(errs, err)
		for _, name := range slices.Concat(found...) {
			errs = append(errs, c.forget(family, name))
		}
	}
	return errors.Join(errs...)
}

// vips returns the services' addresses of one family.
func (f *flows) vips(family int) map[netip.Addr]struct{} {
	vips := map[netip.Addr]struct{}{}
	for k := range f.keys {
		if familyIndex(k.vip.Addr()) == family {
			vips[k.vip.Addr()] = struct{}{}
		}
	}
	return vips
}

// flowsFound is what one pass over conntrack's table found of some services.
type flowsFound struct {
	active  map[flowKey]int
	givenUp []flowName
}

// countFlows counts the tracked connections of the services: TCP ones that have
// not ended, and all UDP ones. Those that were not answered and are given up are
// forgotten, and not counted. What a service with ports holds is none of the one for
// all ports.
func countFlows(c conntracker, usage map[lb.Key]lb.Usage, giveUp, held func(flowKey) bool) error {
	for i := range families {
		vips := map[netip.Addr]struct{}{}
		for k := range usage {
			if familyIndex(k.VIP) == i {
				vips[k.VIP] = struct{}{}
			}
		}
		found, err := survey(c, i, vips, func(t *flowsFound, f *flow,
			name func() flowName,
		) {
			t.note(f, name, usage, giveUp, held)
		})
		if err != nil {
			return fmt.Errorf("read conntrack's table: %w", err)
		}
		for _, t := range found {
			for k, n := range t.active {
				addActive(usage[k.service()], k.backend, n)
			}
			for _, name := range t.givenUp {
				err = errors.Join(err, c.forget(families[i].nfproto, name))
			}
		}
		if err != nil {
			return fmt.Errorf("forget connections that were not answered: %w", err)
		}
	}
	return nil
}

// note adds one connection.
func (t *flowsFound) note(f *flow, name func() flowName, usage map[lb.Key]lb.Usage, giveUp, held func(flowKey) bool) {
	exact, wide := f.keys()
	if held(exact) {
		wide = exact
	}
	if f.tcpState == synSent && (giveUp(exact) || giveUp(wide)) {
		t.givenUp = append(t.givenUp, name())
		return
	}
	if t.active == nil {
		t.active = map[flowKey]int{}
	}
	for _, k := range slices.Compact([]flowKey{exact, wide}) {
		if _, ok := usage[k.service()]; ok && !f.ended() {
			t.active[k]++
		}
	}
}

// service returns the service of the connections: for all ports if theirs is 0.
func (k flowKey) service() lb.Key {
	return lb.Key{VIP: k.vip.Addr(), Port: k.vip.Port(), Proto: k.proto}
}

func addActive(u lb.Usage, backend netip.AddrPort, n int) {
	b, counted := u.Backends[backend]
	if !counted {
		b.Traffic = lb.NoTraffic()
	}
	b.Active += n
	u.Backends[backend] = b
}
