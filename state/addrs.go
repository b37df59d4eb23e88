package state

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// shortID is the length of a short task id, as Docker's.
const shortID = 12

// addrIndex finds endpoints by address and by id. Its maps hold no pointers,
// so that the garbage collector does not scan them (S14): values are rows of
// one slice. Writes come from the table's goroutine, reads from anywhere.
type addrIndex struct {
	mu   sync.RWMutex // guards everything that follows
	rows []*Entry
	free []uint32
	ip4  map[[4]byte]uint32
	ip6  map[[16]byte]uint32
	ids  map[uint64]uint32 // hash of the id or of its first 12 characters
	more map[netip.Addr][]*Entry
	vips map[netip.Addr]string // VIP → service
}

func (x *addrIndex) init() {
	x.ip4, x.ip6, x.ids = map[[4]byte]uint32{}, map[[16]byte]uint32{}, map[uint64]uint32{}
	x.more, x.vips = map[netip.Addr][]*Entry{}, map[netip.Addr]string{}
	x.rows = append(x.rows, nil) // row 0: none
}

func idHash(id string) uint64 { return xxhash.Sum64String(id) }

func (x *addrIndex) put(e *Entry) {
	a6 := e.Addr6()
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := len(x.free); n > 0 {
		e.row, x.free = x.free[n-1], x.free[:n-1]
		x.rows[e.row] = e
	} else {
		e.row = uint32(len(x.rows))
		x.rows = append(x.rows, e)
	}
	for _, h := range idHashes(e.Key()) {
		if _, taken := x.ids[h]; !taken {
			x.ids[h] = e.row
		}
	}
	for _, a := range []netip.Addr{e.Addr4(), a6} {
		if !a.IsValid() {
			continue
		}
		if have := x.row(a); have != 0 {
			x.more[a] = append(x.more[a], e)
			continue
		}
		x.set(a, e.row)
	}
}

func idHashes(id string) []uint64 {
	if len(id) > shortID {
		return []uint64{idHash(id), idHash(id[:shortID])}
	}
	return []uint64{idHash(id)}
}

func (x *addrIndex) remove(e *Entry) {
	a6 := e.Addr6()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, h := range idHashes(e.Key()) {
		if x.ids[h] == e.row {
			delete(x.ids, h)
		}
	}
	for _, a := range []netip.Addr{e.Addr4(), a6} {
		if a.IsValid() {
			x.removeAddr(a, e)
		}
	}
	x.rows[e.row] = nil
	x.free = append(x.free, e.row)
	e.row = 0
}

// removeAddr takes e off an address; another claimant takes its place.
func (x *addrIndex) removeAddr(a netip.Addr, e *Entry) {
	others := slices.DeleteFunc(x.more[a], func(o *Entry) bool { return o == e })
	if x.row(a) == e.row {
		if len(others) > 0 {
			x.set(a, others[0].row)
			others = others[1:]
		} else {
			x.set(a, 0)
		}
	}
	if len(others) == 0 {
		delete(x.more, a)
	} else {
		x.more[a] = others
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
	x.mu.Lock()
	defer x.mu.Unlock()
	if old != nil {
		for _, a := range append([]netip.Addr{old.VIP4, old.VIP6}, old.OtherVIPs...) {
			if x.vips[a] == n.Name {
				delete(x.vips, a)
			}
		}
	}
	for _, a := range append([]netip.Addr{n.VIP4, n.VIP6}, n.OtherVIPs...) {
		if a.IsValid() {
			x.vips[a] = n.Name
		}
	}
}

func (x *addrIndex) byAddr(a netip.Addr) (*Entry, string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.rows[x.row(a)], x.vips[a]
}

func (x *addrIndex) byID(id string) *Entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e := x.rows[x.ids[idHash(id)]]
	if e == nil || e.Key() != id && (len(id) != shortID || !strings.HasPrefix(e.Key(), id)) {
		return nil
	}
	return e
}

// ByIP implements View.
func (ix *index) ByIP(a netip.Addr) IPMatch {
	a = a.Unmap()
	e, vip := ix.addrs.byAddr(a)
	m := IPMatch{Endpoint: e}
	if s := ix.Service(vip); s != nil && (s.VIP4 == a || s.VIP6 == a || slices.Contains(s.OtherVIPs, a)) {
		m.Service = s
	}
	return m
}

// Lookup implements View.
func (ix *index) Lookup(name string) Match {
	if s := ix.Service(name); s != nil {
		return Match{Kind: MatchService, Service: s}
	}
	n, _ := ix.names.Load(name)
	if n != nil && len(n.services) > 0 {
		return ix.alias(n.services)
	}
	if n != nil && len(n.endpoints) > 0 {
		return Match{Kind: MatchEndpoint, Endpoints: n.endpoints, Service: ix.Service(n.endpoints[0].Group())}
	}
	if e := ix.task(name); e != nil {
		return Match{Kind: MatchEndpoint, Endpoints: []*Entry{e}, Service: ix.Service(e.Group())}
	}
	return Match{}
}

// alias picks the service that an alias stands for: the first by name that
// has somebody to serve, else the first. The others are named in Shadowed.
func (ix *index) alias(services []string) Match {
	var m Match
	for _, name := range services {
		s := ix.Service(name)
		if s == nil {
			continue
		}
		if m.Service == nil || len(m.Service.Balanced()) == 0 && len(s.Balanced()) > 0 {
			if m.Service != nil {
				m.Shadowed = append(m.Shadowed, m.Service.Name)
			}
			m.Service, m.Kind = s, MatchAlias
			continue
		}
		m.Shadowed = append(m.Shadowed, name)
	}
	return m
}

// task finds an endpoint by "<service>.<slot>.<id>", "<service>.<id>", id or short id.
func (ix *index) task(name string) *Entry {
	head, id := "", name
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		head, id = name[:i], name[i+1:]
	}
	e := ix.addrs.byID(id)
	if e == nil || head == "" {
		return e
	}
	if ep := e.Endpoint(); name == ep.TaskName() || head+"."+ep.ID == ep.TaskName() {
		return e
	}
	return nil
}
