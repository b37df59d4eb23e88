package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/nftconn"
)

// Snapshot implements lb.Driver. It reads the maps back, and from then on
// takes what it read for what it wrote. Elements that make no sense are not
// ours: they are deleted.
//
// A service whose elements are not as this driver writes them comes back with
// a scheduler that nobody wants, so that it is written again.
func (d *Driver) Snapshot(context.Context) (*lb.Table, error) {
	if d.base == nil {
		return nil, errors.New("nft: Snapshot before Setup")
	}
	routes, err := d.base.AdoptRoutes()
	if err != nil {
		return nil, err
	}
	r := reader{d: d}
	if err := d.conn.ReadWhole(r.read); err != nil {
		return nil, nftconn.Explain("read maps back", err)
	}
	r.replaceEntries()
	if err := errors.Join(r.clean(), d.adoptClasses(r.classes)); err != nil {
		return nil, nftconn.Explain("adopt what is there", err)
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
	classes map[class]bool // chains that can be reached
	unknown map[*nftables.Set][]nftables.SetElement
}

// each gives the elements to f. Those with which f can do nothing are stray.
func (r *reader) each(set *nftables.Set, f func(*nftconn.Element) error) error {
	err := r.d.conn.EachElement(set, func(e *nftconn.Element) error {
		if f(e) != nil {
			r.unknown[set] = append(r.unknown[set], nftables.SetElement{Key: slices.Clone(e.Key)})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("map %s: %w", set.Name, err)
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

func (r *reader) service(elem *nftconn.Element, family int, all bool) error {
	k, _, err := nftconn.ParseKey(elem.Key, family, all)
	if err != nil {
		return err
	}
	c, err := parseClass(elem.Value, family)
	if err == nil && c != (class{}) && c.all != all {
		err = fmt.Errorf("class %s is not of this map", c.name())
	}
	if err != nil {
		return err
	}
	e := r.entry(k)
	e.there, e.class, e.settings.comment = true, c, string(elem.Comment)
	return nil
}

func (r *reader) slot(elem *nftconn.Element, family int, all bool) error {
	k, rest, err := nftconn.ParseKey(elem.Key, family, all)
	if err != nil {
		return err
	}
	backend, err := parseBackend(elem.Value, family, all)
	if err != nil {
		return err
	}
	if len(rest) < 4 {
		return errors.New("element without a slot")
	}
	slot := nativeUint32(rest)
	if slot >= firstParked {
		return r.park(k, slot-firstParked, backend, string(elem.Comment))
	}
	if slot >= highestSlot {
		return fmt.Errorf("slot %d is out of range", slot)
	}
	e := r.entry(k)
	if e.slots == nil {
		e.slots = make([]netip.AddrPort, 0, min(e.class.slots, maxSlots)) // services were read before
	}
	for len(e.slots) <= int(slot) {
		e.slots = append(e.slots, netip.AddrPort{})
	}
	e.slots[slot] = backend
	return nil
}

// class records a class chain that can be reached.
func (r *reader) class(elem *nftconn.Element, family int) error {
	c, err := parseClass(elem.Key, family)
	if err == nil && (c == class{} || c.name() != string(elem.Chain)) {
		err = fmt.Errorf("class %s goes to chain %q", c.name(), elem.Chain)
	}
	if err == nil {
		r.classes[c] = true
	}
	return err
}

// clean deletes unknown elements.
func (r *reader) clean() error {
	if len(r.unknown) == 0 {
		return nil
	}
	for set, elems := range r.unknown {
		r.d.cfg.Log.Warn("deleting elements that make no sense", slog.String("map", set.Name),
			slog.Int("elements", len(elems)))
	}
	if err := nftconn.EachChunk(r.unknown, r.d.conn.Nftables.SetDeleteElements); err != nil {
		return err
	}
	return r.d.conn.Commit()
}

// park records a parked backend.
func (r *reader) park(k lb.Key, i uint32, backend netip.AddrPort, comment string) error {
	if i >= maxParked {
		return fmt.Errorf("parked backend %d is out of range", i)
	}
	weight, ok := readParkedComment(comment)
	if !ok {
		weight = maxWeight + 1 // no backend that is wanted has it: it is written again
	}
	e := r.entry(k)
	for len(e.settings.parked) <= int(i) {
		e.settings.parked = append(e.settings.parked, lb.Backend{})
	}
	e.settings.parked[i] = lb.Backend{Addr: backend, Weight: weight}
	return nil
}

// replaceEntries replaces the driver's entries.
func (r *reader) replaceEntries() {
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
	return e.there == o.there && e.class == o.class && slices.Equal(e.slots, o.slots) && e.settings.equal(o.settings)
}

// adoptClasses counts the uses of the class chains, gives those of a previous
// run this version's rule, and deletes those that nobody uses.
func (d *Driver) adoptClasses(there map[class]bool) error {
	known := d.classes
	d.classes = map[class]int{}
	for _, e := range d.entries {
		if e.class.slots > 0 {
			d.classes[e.class]++
		}
	}
	var errs []error
	c := d.conn.Nftables
	for cl := range d.classes {
		if known[cl] == 0 || !there[cl] {
			errs = append(errs, d.layout.addClass(c, cl))
		}
	}
	for cl := range there {
		if d.classes[cl] == 0 {
			errs = append(errs, d.layout.delClass(c, cl))
		}
	}
	return errors.Join(append(errs, d.conn.Commit())...)
}

// Usage implements lb.Driver. Connections counts the new connections since the
// service's element was written, which is when the number of its backends
// last changed; packets and bytes are not counted. Active counts conntrack's
// entries: TCP that is not closing, and UDP until it times out. What a backend
// has not answered that has had weight 0 for longer than answerTime is forgotten
// meanwhile: the client's next attempt meets another backend.
func (d *Driver) Usage(_ context.Context, keys []lb.Key) (map[lb.Key]lb.Usage, error) {
	if d.base == nil {
		return nil, errors.New("nft: Usage before Setup")
	}
	usage := make(map[lb.Key]lb.Usage, len(keys))
	for _, k := range keys {
		usage[k] = lb.Usage{Traffic: lb.NoTraffic(), Backends: map[netip.AddrPort]lb.BackendUsage{}}
	}
	for i := range d.layout.maps {
		m := &d.layout.maps[i]
		if err := errors.Join(d.count(m.svc, i, false, usage), d.count(m.all, i, true, usage)); err != nil {
			return nil, nftconn.Explain("read counters", err)
		}
	}
	now := time.Now()
	for k := range usage {
		if e := d.entries[k]; e != nil && e.svc != nil {
			e.quiet = quietSince(e.quiet, e.svc, now) // what was read back has none yet
		}
	}
	if err := conntrack.Count(d.flows, usage, d.unanswered(now), d.holds); err != nil {
		return usage, err
	}
	for k, u := range usage {
		if e := d.entries[k]; e != nil {
			e.recordIdle(u)
		}
	}
	return usage, nil
}

// holds reports whether a service with ports has a backend, for connections to it.
func (d *Driver) holds(k conntrack.Key) bool {
	e := d.entries[k.Service()]
	return e != nil && e.svc != nil && slices.ContainsFunc(e.svc.Backends,
		func(b lb.Backend) bool { return b.Addr == k.Backend })
}

// recordIdle records the backends without slots that have no connections: they
// cannot get any.
func (e *entry) recordIdle(u lb.Usage) {
	e.idle = nil
	for _, b := range e.svc.Backends {
		if b.Weight == 0 && u.Backends[b.Addr].Active == 0 {
			e.idle = append(e.idle, b.Addr)
		}
	}
}

func (d *Driver) count(set *nftables.Set, family int, all bool, usage map[lb.Key]lb.Usage) error {
	err := d.conn.EachElement(set, func(e *nftconn.Element) error {
		k, _, err := nftconn.ParseKey(e.Key, family, all)
		if err != nil {
			return err
		}
		if u, ok := usage[k]; ok {
			u.Connections = int64(e.Packets)
			usage[k] = u
		}
		return nil
	})
	if err != nil && !errors.Is(err, nftconn.ErrInterrupted) { // the next pass counts what this one missed
		return fmt.Errorf("map %s: %w", set.Name, err)
	}
	return nil
}
