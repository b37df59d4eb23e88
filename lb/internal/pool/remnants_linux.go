package pool

import (
	"errors"
	"maps"
	"net/netip"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// Discover reads pools and marks that another process left, without changing
// anything, for a Base that was not set up: of the local routes, and of the
// sets if the routes are gone.
func (b *Base) Discover() error {
	if b.ready {
		return nil
	}
	ways, err := b.routes.ways()
	if err != nil {
		return err
	}
	pools := map[netip.Prefix]lb.Pool{}
	for prefix, w := range ways {
		pools[prefix] = lb.Pool{Prefix: prefix, Src: w.src}
	}
	found := map[lb.Key]uint32{}
	for i := range nftconn.Families {
		have, err := b.conn.HasTable(b.table[i])
		if err != nil {
			return err
		}
		if !have {
			continue
		}
		elems, err := b.conn.Elements(b.guard.pool[i])
		if err != nil {
			return err
		}
		for _, p := range prefixes(elems) {
			if _, there := pools[p]; !there {
				pools[p] = lb.Pool{Prefix: p}
			}
		}
		marks, err := b.marks.discover(i)
		if err != nil {
			return err
		}
		maps.Copy(found, marks)
	}
	b.pools, b.marks.byService = pools, found
	return nil
}

// prefixes returns the intervals of a pool set that are prefixes; each other
// interval is none of ours.
func prefixes(elems []nftables.SetElement) []netip.Prefix {
	ends := map[netip.Addr]bool{}
	for _, e := range elems {
		if a, ok := netip.AddrFromSlice(e.Key); ok && e.IntervalEnd {
			ends[a] = true
		}
	}
	var all []netip.Prefix
	for _, e := range elems {
		a, ok := netip.AddrFromSlice(e.Key)
		if !ok || e.IntervalEnd {
			continue
		}
		for bits := a.BitLen(); bits > 0; bits-- {
			p := netip.PrefixFrom(a, bits)
			if p.Masked() == p && ends[lastAddr(p).Next()] {
				all = append(all, p)
				break
			}
		}
	}
	return all
}

// Remnants lists routes and tables of ours.
func (b *Base) Remnants() ([]lb.Remnant, error) {
	ways, err := b.routes.ways()
	if err != nil {
		return nil, err
	}
	var left []lb.Remnant
	for prefix, w := range ways {
		p := lb.Pool{Prefix: prefix, Src: w.src}
		left = append(left, lb.Remnant{Area: lb.AreaRoute, What: lb.PoolRoute(p), Detail: lb.PoolSource(p)})
	}
	for i := range nftconn.Families {
		there, err := b.conn.HasTable(b.table[i])
		if err != nil {
			return left, err
		}
		if there {
			left = append(left, lb.Remnant{
				Area: lb.AreaTable, What: nftconn.TableText(b.table[i]), Detail: "guard, masquerade, marks",
			})
		}
	}
	return left, nil
}

// Teardown removes routes and tables of ours, those of other processes too.
// The sysctls stay (see sysctl.PutBack).
func (b *Base) Teardown() error {
	ways, err := b.routes.ways()
	errs := []error{err}
	for prefix := range ways {
		errs = append(errs, b.routes.remove(prefix))
	}
	for i := range nftconn.Families {
		errs = append(errs, b.conn.DropTable(b.table[i]))
	}
	b.pools, b.ready = map[netip.Prefix]lb.Pool{}, false
	b.marks.byService, b.served.has = map[lb.Key]uint32{}, map[lb.Key]bool{}
	return errors.Join(errs...)
}
