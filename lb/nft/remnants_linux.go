package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// Discover reads pools and marks that another process left, without changing
// anything, for a Helpers that was not set up: of the local routes, and of the
// sets if the routes are gone.
func (h *Helpers) Discover() error {
	if h.ready {
		return nil
	}
	ways, err := h.ways()
	if err != nil {
		return err
	}
	pools := map[netip.Prefix]lb.Pool{}
	for prefix, w := range ways {
		pools[prefix] = lb.Pool{Prefix: prefix, Src: w.src}
	}
	marks := map[lb.Key]uint32{}
	for i := range families {
		have, err := h.hasTable(h.table[i])
		if err != nil {
			return err
		}
		if !have {
			continue
		}
		elems, err := h.sock.elements(h.pool[i])
		if err != nil {
			return err
		}
		for _, p := range prefixes(elems) {
			if _, there := pools[p]; !there {
				pools[p] = lb.Pool{Prefix: p}
			}
		}
		found, err := h.discoverMarks(i)
		if err != nil {
			return err
		}
		maps.Copy(marks, found)
	}
	h.pools, h.marks = pools, marks
	return nil
}

// discoverMarks reads the mark map of one family, also one of another version,
// if there is one: without IPVS there is none. What one of another shape says is
// not known.
func (h *Helpers) discoverMarks(i int) (map[lb.Key]uint32, error) {
	if h.mark[i] == nil {
		return nil, nil
	}
	all := map[lb.Key]uint32{}
	for _, set := range []*nftables.Set{h.oldMarks(i), h.mark[i]} {
		there, err := h.sock.findSet(set)
		if err != nil {
			return nil, err
		}
		if there == nil || !sameKeys(there, set) {
			continue
		}
		marks, err := h.readMarks(i, set)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, marks)
	}
	return all, nil
}

// findSet returns what the kernel says of a set of an existing table, nil if it
// is not there. (The error of reading a missing one does not tell that it is
// missing.)
func (s *sockets) findSet(set *nftables.Set) (*nftables.Set, error) {
	all, err := s.nft.GetSets(set.Table)
	if err != nil {
		return nil, explain("list sets", err)
	}
	if i := slices.IndexFunc(all, func(o *nftables.Set) bool { return o.Name == set.Name }); i >= 0 {
		return all[i], nil
	}
	return nil, nil
}

// sameKeys reports whether the keys of two sets are of one shape.
func sameKeys(a, b *nftables.Set) bool { return a.KeyType.GetNFTMagic() == b.KeyType.GetNFTMagic() }

// elements returns the elements of a set of an existing table; those of a
// missing one, as another version may have left it, are none.
func (s *sockets) elements(set *nftables.Set) ([]nftables.SetElement, error) {
	there, err := s.findSet(set)
	if err != nil || there == nil {
		return nil, err
	}
	elems, err := s.nft.GetSetElements(set)
	return elems, explain("read set "+set.Name, err)
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

func (h *Helpers) hasTable(t *nftables.Table) (bool, error) {
	list, err := h.sock.nft.ListTablesOfFamily(t.Family)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return false, nil // a kernel without it
	}
	if err != nil {
		return false, explain("list tables", err)
	}
	return slices.ContainsFunc(list, func(o *nftables.Table) bool { return o.Name == t.Name }), nil
}

// Remnants lists routes and tables of ours.
func (h *Helpers) Remnants() ([]lb.Remnant, error) {
	ways, err := h.ways()
	if err != nil {
		return nil, err
	}
	var left []lb.Remnant
	for prefix, w := range ways {
		p := lb.Pool{Prefix: prefix, Src: w.src}
		left = append(left, lb.Remnant{Area: lb.AreaRoute, What: lb.PoolRoute(p), Detail: lb.PoolSource(p)})
	}
	for i := range families {
		there, err := h.hasTable(h.table[i])
		if err != nil {
			return left, err
		}
		if there {
			left = append(left, lb.Remnant{Area: lb.AreaTable, What: tableText(h.table[i]), Detail: "guard, masquerade, marks"})
		}
	}
	return left, nil
}

func tableText(t *nftables.Table) string {
	name := map[nftables.TableFamily]string{
		nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
		nftables.TableFamilyINet: "inet",
	}[t.Family]
	return fmt.Sprintf("nftables table %s %s", name, t.Name)
}

// Teardown removes routes and tables of ours, those of other processes too.
// The sysctls stay (see PutBackSysctls).
func (h *Helpers) Teardown() error {
	ways, err := h.ways()
	errs := []error{err}
	for prefix := range ways {
		errs = append(errs, h.delWay(prefix))
	}
	for i := range families {
		errs = append(errs, h.drop(h.table[i]))
	}
	h.pools, h.marks, h.serves, h.ready = map[netip.Prefix]lb.Pool{}, map[lb.Key]uint32{}, map[lb.Key]bool{}, false
	return errors.Join(errs...)
}

// drop deletes one of our tables if it is there.
func (h *Helpers) drop(t *nftables.Table) error {
	there, err := h.hasTable(t)
	if err != nil || !there {
		return err
	}
	h.sock.nft.DelTable(t)
	return explain("delete table "+t.Name, h.sock.commit())
}

// RemoveServices deletes the nft driver's services in the namespace, for
// another driver that takes over there.
func (h *Helpers) RemoveServices() error { return h.drop(newLayout().table) }

// open opens the sockets if they are not open.
func (d *Driver) open() error {
	if d.help != nil {
		return nil
	}
	help, err := NewHelpers(d.cfg, false)
	if err == nil {
		d.help = help
	}
	return err
}

// Remnants implements lb.Driver.
func (d *Driver) Remnants(context.Context) ([]lb.Remnant, error) {
	if err := d.open(); err != nil {
		return nil, err
	}
	left, err := d.help.Remnants()
	if err != nil {
		return left, err
	}
	there, err := d.help.hasTable(d.layout.table)
	if err != nil || !there {
		return left, err
	}
	services := 0
	for i := range d.layout.maps {
		for _, set := range []*nftables.Set{d.layout.maps[i].svc, d.layout.maps[i].all} {
			elems, err := d.help.sock.elements(set)
			if err != nil {
				return left, err
			}
			services += len(elems)
		}
	}
	left = append(left, lb.Remnant{
		Area: lb.AreaTable, What: tableText(d.layout.table),
		Detail: fmt.Sprintf("%d services", services),
	})
	lb.SortRemnants(left)
	return left, nil
}

// Teardown implements lb.Driver.
func (d *Driver) Teardown(context.Context) error {
	if err := d.open(); err != nil {
		return err
	}
	d.entries, d.classes = map[lb.Key]*entry{}, map[class]int{}
	return errors.Join(d.help.drop(d.layout.table), d.help.Teardown())
}
