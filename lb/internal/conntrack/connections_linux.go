package conntrack

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"meshd/lb"
	"meshd/lb/nftconn"
	"meshd/state"
)

// Key identifies the connections of one backend of one service in
// conntrack: original destination, and source of the replies.
type Key struct {
	VIP     netip.AddrPort // port 0: any
	Proto   state.Proto
	Backend netip.AddrPort // port 0: any
}

// Set is a set of connections to delete. The zero value is empty.
type Set struct {
	keys map[Key]struct{}
}

// Add adds the connections of one backend of a service.
func (f *Set) Add(k lb.Key, backend netip.AddrPort) {
	if f.keys == nil {
		f.keys = map[Key]struct{}{}
	}
	f.keys[Key{VIP: netip.AddrPortFrom(k.VIP, k.Port), Proto: k.Proto, Backend: backend}] = struct{}{}
}

// Join adds what is in another set.
func (f *Set) Join(o *Set) {
	if f.keys == nil {
		f.keys = map[Key]struct{}{}
	}
	maps.Copy(f.keys, o.keys)
}

// Len returns of how many backends connections are in the set.
func (f *Set) Len() int { return len(f.keys) }

// has reports whether a connection is in the set: one of a service for all ports is
// not, if a service with its port holds it (held; nil: none does).
func (f *Set) has(of *Flow, held func(Key) bool) bool {
	exact, wide := of.keys()
	_, ok := f.keys[exact]
	if !ok {
		_, ok = f.keys[wide]
		ok = ok && (held == nil || !held(exact))
	}
	return ok
}

// Delete removes the connections from conntrack, but for those that are held.
func (f *Set) Delete(c Table, held func(Key) bool) error {
	var errs []error
	for i := range nftconn.Families {
		family := nftconn.Families[i].Proto
		found, err := survey(c, i, f.vips(i), func(names *[]Name, of *Flow, name func() Name) {
			if f.has(of, held) {
				*names = append(*names, name())
			}
		})
		errs = append(errs, err)
		for _, name := range slices.Concat(found...) {
			errs = append(errs, c.Forget(family, name))
		}
	}
	return errors.Join(errs...)
}

// vips returns the services' addresses of one family.
func (f *Set) vips(family int) map[netip.Addr]struct{} {
	vips := map[netip.Addr]struct{}{}
	for k := range f.keys {
		if nftconn.FamilyIndex(k.VIP.Addr()) == family {
			vips[k.VIP.Addr()] = struct{}{}
		}
	}
	return vips
}

// flowsFound is what one pass over conntrack's table found of some services.
type flowsFound struct {
	active  map[Key]int
	givenUp []Name
}

// Count counts the tracked connections of the services: TCP ones that have
// not ended, and all UDP ones. Those that were not answered and are given up are
// forgotten, and not counted. What a service with ports holds is none of the one for
// all ports.
func Count(c Table, usage map[lb.Key]lb.Usage, giveUp, held func(Key) bool) error {
	for i := range nftconn.Families {
		vips := map[netip.Addr]struct{}{}
		for k := range usage {
			if nftconn.FamilyIndex(k.VIP) == i {
				vips[k.VIP] = struct{}{}
			}
		}
		found, err := survey(c, i, vips, func(t *flowsFound, f *Flow,
			name func() Name,
		) {
			t.add(f, name, usage, giveUp, held)
		})
		if err != nil {
			return fmt.Errorf("read conntrack's table: %w", err)
		}
		for _, t := range found {
			for k, n := range t.active {
				addActive(usage[k.Service()], k.Backend, n)
			}
			for _, name := range t.givenUp {
				err = errors.Join(err, c.Forget(nftconn.Families[i].Proto, name))
			}
		}
		if err != nil {
			return fmt.Errorf("forget connections that were not answered: %w", err)
		}
	}
	return nil
}

// add counts one connection.
func (t *flowsFound) add(f *Flow, name func() Name, usage map[lb.Key]lb.Usage, giveUp, held func(Key) bool) {
	exact, wide := f.keys()
	if held(exact) {
		wide = exact
	}
	if f.tcpState == synSent && (giveUp(exact) || giveUp(wide)) {
		t.givenUp = append(t.givenUp, name())
		return
	}
	if t.active == nil {
		t.active = map[Key]int{}
	}
	for _, k := range slices.Compact([]Key{exact, wide}) {
		if _, ok := usage[k.Service()]; ok && !f.ended() {
			t.active[k]++
		}
	}
}

// Service returns the service of the connections: for all ports if theirs is 0.
func (k Key) Service() lb.Key {
	return lb.Key{VIP: k.VIP.Addr(), Port: k.VIP.Port(), Proto: k.Proto}
}

func addActive(u lb.Usage, backend netip.AddrPort, n int) {
	b, counted := u.Backends[backend]
	if !counted {
		b.Traffic = lb.NoTraffic()
	}
	b.Active += n
	u.Backends[backend] = b
}
