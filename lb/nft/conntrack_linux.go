package nft

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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

// flows is a set of connections to delete. It implements the filter of
// vishvananda/netlink. The zero value is empty.
type flows struct {
	keys map[flowKey]struct{}
}

// add adds the backend's connections of one protocol; 0 is TCP and UDP.
func (f *flows) add(k lb.Key, backend netip.AddrPort, proto state.Proto) {
	if f.keys == nil {
		f.keys = map[flowKey]struct{}{}
	}
	protos := []state.Proto{proto}
	if proto == 0 {
		protos = []state.Proto{state.TCP, state.UDP}
	}
	for _, p := range protos {
		f.keys[flowKey{vip: netip.AddrPortFrom(k.VIP, k.Port), proto: p, backend: backend}] = struct{}{}
	}
}

func (f *flows) join(o *flows) {
	if f.keys == nil {
		f.keys = map[flowKey]struct{}{}
	}
	maps.Copy(f.keys, o.keys)
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f *flows) MatchConntrackFlow(flow *rtnl.ConntrackFlow) bool {
	of := flowOf(flow)
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
	for i, fam := range []rtnl.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if !f.has(i) {
			continue
		}
		errs = append(errs, undisturbed(func() error {
			_, err := s.route.ConntrackDeleteFilters(rtnl.ConntrackTable, fam, f)
			return err
		}))
	}
	return errors.Join(errs...)
}

// undisturbed reads a table again if it changed meanwhile, so that nothing is
// missed; not for ever.
func undisturbed(read func() error) (err error) {
	for range 5 {
		if err = read(); !errors.Is(err, rtnl.ErrDumpInterrupted) && !errors.Is(err, errInterrupted) {
			break
		}
	}
	return err
}

func (f *flows) has(family int) bool {
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
			return s.queries.flows(families[i].nfproto, func(f *flow) {
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
	key := lb.Key{VIP: k.vip.Addr(), Port: k.vip.Port()}
	if key.Port != 0 {
		key.Proto = k.proto
	}
	return key
}

func addActive(u lb.Usage, backend netip.AddrPort, n int) {
	b, counted := u.Backends[backend]
	if !counted {
		b.Traffic = lb.NoTraffic()
	}
	b.Active += n
	u.Backends[backend] = b
}
