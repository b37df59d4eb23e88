package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"meshd/lb"
)

// Snapshot implements lb.Driver. It reads the maps back, and from then on
// takes what it read for what it wrote. The kernel's cost grows faster than
// the maps: it is for the start, for audits and after drift.
//
// A service whose elements are not as this driver writes them comes back with
// a scheduler that nobody wants, so that it is written again.
func (d *Driver) Snapshot(context.Context) (*lb.Table, error) {
	if d.help == nil {
		return nil, errors.New("nft: Snapshot before Setup")
	}
	routes, err := d.help.routes()
	if err != nil {
		return nil, err
	}
	for prefix, p := range routes {
		if _, known := d.help.pools[prefix]; !known {
			d.help.pools[prefix] = p
		}
	}
	generation, err := d.help.sock.generation()
	if err != nil {
		return nil, err
	}
	r := reader{d: d, entries: map[lb.Key]*entry{}}
	if err := r.read(); err != nil {
		return nil, explain("read maps back", err)
	}
	d.help.sock.seen = generation
	r.settle()
	if err := d.adoptClasses(); err != nil {
		return nil, err
	}
	t := lb.NewTable()
	t.Pools = routes
	for k, e := range d.entries {
		t.Services[k] = e.svc
	}
	return t, nil
}

// reader rebuilds the driver's entries from the kernel's elements.
type reader struct {
	d       *Driver
	entries map[lb.Key]*entry
}

func (r *reader) read() error {
	for i := range r.d.layout.maps {
		m := &r.d.layout.maps[i]
		err := errors.Join(
			r.each(m.svc, i, false, r.service), r.each(m.eps, i, false, r.slot),
			r.each(m.all, i, true, r.service), r.each(m.allepsSet, i, true, r.slot))
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) each(set *nftables.Set, family int, all bool,
	f func(e *entry, elem *nftables.SetElement, rest []byte, family int, all bool) error,
) error {
	elems, err := r.d.help.sock.nft.GetSetElements(set)
	if err != nil {
		return fmt.Errorf("map %s: %w", set.Name, err)
	}
	for i := range elems {
		k, rest, err := parseKey(elems[i].Key, family, all)
		if err == nil {
			err = f(r.entry(k), &elems[i], rest, family, all)
		}
		if err != nil {
			return fmt.Errorf("map %s: %w", set.Name, err)
		}
	}
	return nil
}

func (r *reader) entry(k lb.Key) *entry {
	e := r.entries[k]
	if e == nil {
		e = &entry{svc: &lb.Service{Key: k}}
		r.entries[k] = e
	}
	return e
}

func (r *reader) service(e *entry, elem *nftables.SetElement, _ []byte, family int, all bool) error {
	if len(elem.Val) < 4 {
		return fmt.Errorf("element value of %d bytes", len(elem.Val))
	}
	e.there, e.memo.note = true, elem.Comment
	number := binary.BigEndian.Uint32(elem.Val)
	if number == 0 {
		return nil
	}
	c, err := classAt(number, family)
	if err == nil && c.all != all {
		err = fmt.Errorf("class %s is not of this map", c.name())
	}
	e.class = c
	return err
}

func (r *reader) slot(e *entry, elem *nftables.SetElement, rest []byte, family int, all bool) error {
	backend, err := parseBackend(elem.Val, family, all)
	if err != nil {
		return err
	}
	if len(rest) < 4 {
		return fmt.Errorf("element without a slot")
	}
	slot := int(nativeUint32(rest))
	if slot >= firstParked {
		return e.park(slot-firstParked, backend, elem.Comment)
	}
	if slot >= maglevSizes[len(maglevSizes)-1]*2 {
		return fmt.Errorf("slot %d is out of range", slot)
	}
	for len(e.slots) <= slot {
		e.slots = append(e.slots, netip.AddrPort{})
	}
	e.slots[slot] = backend
	return nil
}

// park notes a parked backend.
func (e *entry) park(i int, backend netip.AddrPort, comment string) error {
	if i >= maxParked {
		return fmt.Errorf("parked backend %d is out of range", i)
	}
	weight, ok := readParkedComment(comment)
	if !ok {
		weight = maxWeight + 1 // no backend that is wanted has it: it is written again
	}
	for len(e.memo.parked) <= i {
		e.memo.parked = append(e.memo.parked, lb.Backend{})
	}
	e.memo.parked[i] = lb.Backend{Addr: backend, Weight: weight}
	return nil
}

// settle replaces the driver's entries.
func (r *reader) settle() {
	for k, e := range r.entries {
		if known := r.d.entries[k]; known != nil && known.sameElements(e) {
			r.entries[k] = known
			continue
		}
		e.describe()
	}
	r.d.entries = r.entries
}

func (e *entry) sameElements(o *entry) bool {
	return e.there == o.there && e.class == o.class && slices.Equal(e.slots, o.slots) && e.memo.equal(o.memo)
}

// adoptClasses counts the uses of the class chains, gives those of a previous
// run this version's rule, and deletes those that nobody uses.
func (d *Driver) adoptClasses() error {
	known := d.classes
	d.classes = map[class]int{}
	for _, e := range d.entries {
		if e.class.slots > 0 {
			d.classes[e.class]++
		}
	}
	there, err := d.readClasses()
	if err != nil {
		return err
	}
	c := d.help.sock.nft
	for cl := range d.classes {
		if known[cl] == 0 || !there[cl] {
			err = errors.Join(err, d.layout.addClass(c, cl))
		}
	}
	for cl := range there {
		if d.classes[cl] == 0 {
			err = errors.Join(err, d.layout.delClass(c, cl))
		}
	}
	return explain("adopt class chains", errors.Join(err, d.help.sock.commit()))
}

// readClasses returns the class chains that can be reached.
func (d *Driver) readClasses() (map[class]bool, error) {
	there := map[class]bool{}
	for i := range d.layout.maps {
		elems, err := d.help.sock.nft.GetSetElements(d.layout.maps[i].class)
		if err != nil {
			return nil, explain("read classes back", err)
		}
		for _, e := range elems {
			cl, err := readClass(&e, i)
			if err != nil {
				return nil, explain("read classes back", err)
			}
			there[cl] = true
		}
	}
	return there, nil
}

func readClass(e *nftables.SetElement, family int) (class, error) {
	if len(e.Key) < 4 {
		return class{}, fmt.Errorf("element key of %d bytes", len(e.Key))
	}
	chain, err := verdictChain(e.Val)
	if err != nil {
		return class{}, err
	}
	cl, err := classAt(binary.BigEndian.Uint32(e.Key), family)
	if err == nil && cl.name() != chain {
		err = fmt.Errorf("class %s goes to chain %q", cl.name(), chain)
	}
	return cl, err
}

// Usage implements lb.Driver. Connections counts the new connections since the
// service's element was written, which is when the number of its backends
// last changed; packets and bytes are not counted. Active counts conntrack's
// entries: TCP that is not closing, and UDP until it times out.
func (d *Driver) Usage(_ context.Context, keys []lb.Key) (map[lb.Key]lb.Usage, error) {
	if d.help == nil {
		return nil, errors.New("nft: Usage before Setup")
	}
	usage := make(map[lb.Key]lb.Usage, len(keys))
	for _, k := range keys {
		usage[k] = lb.Usage{Traffic: lb.NoTraffic(), Backends: map[netip.AddrPort]lb.BackendUsage{}}
	}
	for i := range d.layout.maps {
		m := &d.layout.maps[i]
		if err := errors.Join(d.count(m.svc, i, false, usage), d.count(m.all, i, true, usage)); err != nil {
			return nil, explain("read counters", err)
		}
	}
	return usage, countFlows(d.help.sock, usage)
}

func (d *Driver) count(set *nftables.Set, family int, all bool, usage map[lb.Key]lb.Usage) error {
	elems, err := d.help.sock.nft.GetSetElements(set)
	if err != nil {
		return fmt.Errorf("map %s: %w", set.Name, err)
	}
	for i := range elems {
		k, _, err := parseKey(elems[i].Key, family, all)
		if err != nil {
			return fmt.Errorf("map %s: %w", set.Name, err)
		}
		if u, ok := usage[k]; ok && elems[i].Counter != nil {
			u.Connections = int64(elems[i].Counter.Packets)
			usage[k] = u
		}
	}
	return nil
}
