package nft

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"

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

// has reports whether a connection is in the set.
func (f *flows) has(of *flow) bool {
	exact, wide := of.keys()
	_, ok := f.keys[exact]
	if !ok {
		_, ok = f.keys[wide]
	}
	return ok
}

// delete removes the connections from conntrack, in one pass per family. The
// cost grows with the conntrack table.
func (f *flows) delete(s *sockets) error {
	var errs []error
	for i := range families {
		if !f.hasFamily(i) {
			continue
		}
		family := families[i].nfproto
		var names []flowName
		errs = append(errs, undisturbed(func() error {
			names = nil
			return s.queries.flows(family, func(of *flow, name func() flowName) {
				if f.has(of) {
					names = append(names, name())
				}
			})
		}))
		for _, name := range names {
			errs = append(errs, s.queries.forget(family, name))
		}
	}
	return errors.Join(errs...)
}

// undisturbed reads a table again if it changed meanwhile, so that nothing is
// missed; not for ever.
func undisturbed(read func() error) (err error) {
	for range 5 {
		if err = read(); !errors.Is(err, errInterrupted) {
			break
		}
	}
	return err
}

func (f *flows) hasFamily(family int) bool {
	for k := range f.keys {
		if familyIndex(k.vip.Addr()) == family {
			return true
		}
	}
	return false
}

// countFlows counts the tracked connections of the services: TCP ones that have
// not ended, and all UDP ones.
func countFlows(s *sockets, usage map[lb.Key]lb.Usage) error {
	wanted := [len(families)]bool{}
	for k := range usage {
		wanted[familyIndex(k.VIP)] = true
	}
	for i := range families {
		if !wanted[i] {
			continue
		}
		var active map[flowKey]int
		err := undisturbed(func() error {
			active = map[flowKey]int{}
			return s.queries.flows(families[i].nfproto, func(f *flow, _ func() flowName) {
				exact, wide := f.keys()
				for _, k := range []flowKey{exact, wide} {
					if _, ok := usage[k.service()]; ok && !f.ended() {
						active[k]++
					}
				}
			})
		})
		if err != nil {
			return fmt.Errorf("read conntrack's table: %w", err)
		}
		for k, n := range active {
			addActive(usage[k.service()], k.backend, n)
		}
	}
	return nil
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
