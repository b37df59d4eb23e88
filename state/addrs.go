package state

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// shortID is the length of a short task id, as Docker's.
const shortID = 12

// This file owns where endpoints are found by address and by id.

// addrIndex finds endpoints by address and by id. Its large maps hold no
// pointers, so that the garbage collector does not scan them (S14): values are
// rows of one slice. Writes come from the table's goroutine, reads from anywhere.
//
// Invariant: each endpoint in rows is found by its id and by each of its addresses.
type addrIndex struct {
	mu sync.RWMutex // guards everything that follows against readers

	// The endpoints.
	rows []*Entry // by row; nil: the row is free. Row 0 stands for none
	free []uint32 // free rows

	// By address.
	ip4  map[[4]byte]uint32          // the first endpoint by id that has the IPv4 address
	ip6  map[[16]byte]uint32         // the same for IPv6
	more map[netip.Addr]*bag[uint32] // the others
	vips map[netip.Addr]string       // the service that a VIP leads to

	// By id.
	ids  map[uint64]uint32     // hash of the first 12 characters of the id → one endpoint
	twin map[uint64]*bag[twin] // the others
	full map[uint32][]uint32   // rows late in a long list of twin, by the hash of the whole id
	look bool                  // an id was taken over while another owner's task came: see rival
}

func (x *addrIndex) init() {
	x.ip4, x.ip6, x.ids = map[[4]byte]uint32{}, map[[16]byte]uint32{}, map[uint64]uint32{}
	x.more, x.twin, x.vips = map[netip.Addr]*bag[uint32]{}, map[uint64]*bag[twin]{}, map[netip.Addr]string{}
	x.full = map[uint32][]uint32{}
	x.rows = append(x.rows, nil) // row 0: none
}

func idHash(id string) uint64 { return xxhash.Sum64String(id[:min(len(id), shortID)]) }

// batch is how many endpoints are changed before readers get their turn.
const batch = 64

// put makes the endpoints that changes bring known; one at the addresses of its
// predecessor takes over its row. It returns the slots, of changes or not, that
// lose their id to another owner's task; those of changes are left out again if they
// lost at once.
func (x *addrIndex) put(changes []change) (losers []*slot) {
	for changes := range slices.Chunk(changes, batch) {
		x.mu.Lock()
		for i := range changes {
			if c := &changes[i]; c.cur == nil {
				continue
			} else if loser := x.putOne(c); loser != nil {
				losers = append(losers, loser)
			}
		}
		x.mu.Unlock()
	}
	return losers
}

// putOne is put for one endpoint.
func (x *addrIndex) putOne(c *change) (loser *slot) {
	e, contested := c.cur, x.look
	switch {
	case c.old == e: // only its class changed
		c.row = 0
		return nil
	case c.old != nil && c.old.samePlace(e):
		x.rows[c.row], c.row = e, 0
	default:
		c.slot.row, contested = x.insert(e)
	}
	if !contested {
		return nil
	}
	switch o := x.rival(e); {
	case o == nil:
		return nil
	case e.winsID(o):
		return o.slot()
	}
	x.delete(c.slot.row)
	c.slot.row = 0
	return c.slot
}

// rival returns the endpoint of another owner that is shown under e's id: if
// there are several, the one that has the best right to it.
func (x *addrIndex) rival(e *Entry) (best *Entry) {
	look := func(row uint32) {
		o := x.rows[row]
		if o == nil || o == e || o.Key() != e.Key() || o.Owner() == e.Owner() {
			return
		}
		sl := o.slot()
		if sl == nil || sl.row != row || sl.hidden {
			return // about to go
		}
		if sl.current != o {
			x.look = true // its successor, which gets the row, is still to come
			return
		}
		if best == nil || o.winsID(best) {
			best = o
		}
	}
	h, full := idHash(e.Key()), fullHash(e.Key())
	look(x.ids[h])
	for _, t := range x.twin[h].some() {
		if t.hash == full {
			look(t.row)
		}
	}
	for _, row := range x.full[full] {
		look(row)
	}
	return best
}

// twin is an endpoint whose id begins like another's.
type twin struct{ hash, row uint32 } // of the whole id

func fullHash(id string) uint32 { return uint32(xxhash.Sum64String(id)) }

// insert puts e into a row and reports whether another id begins like its own.
func (x *addrIndex) insert(e *Entry) (row uint32, contested bool) {
	if n := len(x.free); n > 0 {
		row, x.free = x.free[n-1], x.free[:n-1]
		x.rows[row] = e
	} else {
		row = uint32(len(x.rows))
		x.rows = append(x.rows, e)
	}
	if h := idHash(e.Key()); x.ids[h] == 0 {
		x.ids[h] = row
	} else {
		contested = true
		full := fullHash(e.Key())
		if addTo(x.twin, h, twin{full, row}) > longList {
			x.full[full] = append(x.full[full], row)
		}
	}
	for _, a := range e.addrs() {
		have := x.row(a)
		switch {
		case !a.IsValid():
		case have == 0:
			x.set(a, row)
		case compareID(e, x.rows[have]) < 0:
			x.set(a, row)
			addTo(x.more, a, have)
		default:
			addTo(x.more, a, row)
		}
	}
	return row, contested
}

func (e *Entry) addrs() [2]netip.Addr { return [2]netip.Addr{e.Addr4(), e.Addr6()} }

// freedRow is a row whose endpoint is no longer shown.
type freedRow struct {
	row  uint32
	id   string // of the endpoint
	lost bool   // the endpoint lost its id to another one
}

// remove empties rows.
func (x *addrIndex) remove(rows []freedRow) {
	for rows := range slices.Chunk(rows, batch) {
		x.mu.Lock()
		for _, r := range rows {
			x.delete(r.row)
		}
		x.mu.Unlock()
	}
}

// delete empties a row.
func (x *addrIndex) delete(row uint32) {
	e := x.rows[row]
	h := idHash(e.Key())
	others := x.dropTwin(h, twin{fullHash(e.Key()), row})
	switch {
	case x.ids[h] != row:
	case others.len() == 0:
		delete(x.ids, h)
	default:
		first := others.list[0]
		x.ids[h] = first.row
		x.dropTwin(h, first)
	}
	for _, a := range e.addrs() {
		if a.IsValid() {
			x.leave(a, row)
		}
	}
	x.rows[row] = nil
	x.free = append(x.free, row)
}

// dropTwin drops an endpoint from the list of those whose id begins like its own
// and returns what is left of it.
func (x *addrIndex) dropTwin(h uint64, t twin) *bag[twin] {
	if rows, ok := x.full[t.hash]; ok {
		if rows = slices.DeleteFunc(rows, func(r uint32) bool { return r == t.row }); len(rows) == 0 {
			delete(x.full, t.hash)
		} else {
			x.full[t.hash] = rows
		}
	}
	return dropFrom(x.twin, h, t)
}

// leave takes a row off an address; the next by id takes its place, or, of very
// many, one of them.
func (x *addrIndex) leave(a netip.Addr, row uint32) {
	others := dropFrom(x.more, a, row)
	switch {
	case x.row(a) != row:
	case others.len() == 0:
		x.set(a, 0)
	default:
		next := slices.MinFunc(others.some(), func(a, b uint32) int { return compareID(x.rows[a], x.rows[b]) })
		x.set(a, next)
		dropFrom(x.more, a, next)
	}
}

func (x *addrIndex) row(a netip.Addr) uint32 {
	if a.Is4() {
		return x.ip4[a.As4()]
	}
	return x.ip6[a.As16()]
}

func (x *addrIndex) set(a netip.Addr, row uint32) {
	switch {
	case a.Is4() && row == 0:
		delete(x.ip4, a.As4())
	case a.Is4():
		x.ip4[a.As4()] = row
	case row == 0:
		delete(x.ip6, a.As16())
	default:
		x.ip6[a.As16()] = row
	}
}

// putVIP makes the addresses of n those of its service; old is the view it replaces.
func (x *addrIndex) putVIP(n, old *Service) {
	if n.VIP4 == old.VIP4 && n.VIP6 == old.VIP6 && slices.Equal(n.OtherVIPs, old.OtherVIPs) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, a := range old.vips() {
		if x.vips[a] == n.Name {
			delete(x.vips, a)
		}
	}
	for _, a := range n.vips() {
		if a.IsValid() {
			x.vips[a] = n.Name
		}
	}
}

func (s *Service) vips() []netip.Addr {
	return append([]netip.Addr{s.VIP4, s.VIP6}, s.OtherVIPs...)
}
