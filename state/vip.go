package state

import (
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// This file owns which service has which virtual address (V1, V3).

// ErrExhausted is returned by allocate when every address of the pool is
// claimed: the service is answered like dnsrr (V7).
var ErrExhausted = errors.New("VIP pool exhausted")

// vipHash is H(network, service, i) of V1.
func vipHash(network, service string, i uint64) uint64 {
	b := make([]byte, 0, len(network)+len(service)+10)
	b = append(append(append(b, network...), 0), service...)
	b = binary.BigEndian.AppendUint64(b, i)
	return mix64(xxhash.Sum64(b))
}

// VIP6 returns the IPv6 VIP of a service: prefix ‖ H64 (V1). It needs no claim
// and never moves. The zero Addr if the network has no IPv6 pool.
func VIP6(d *NetworkDef, service string) netip.Addr {
	if !d.Subnet6.IsValid() {
		return netip.Addr{}
	}
	a := d.Subnet6.Addr().As16()
	binary.BigEndian.PutUint64(a[8:], vipHash(d.Name, service, 0))
	return netip.AddrFrom16(a)
}

// lowBand is how many of a pool's lowest addresses are for pinned VIPs only:
// min(max(16, size/16), 256) as in KEP-3070, none in a pool under 64.
func lowBand(size uint64) uint64 {
	if size < 64 {
		return 1 // the network address
	}
	return min(max(16, size/16), 256)
}

// probe4 returns the i-th candidate of a service in an IPv4 pool.
func probe4(d *NetworkDef, service string, i uint64) netip.Addr {
	size := uint64(1) << (32 - d.Subnet4.Bits())
	low := lowBand(size)
	n := size - low - 1 // without the broadcast address
	base := d.Subnet4.Addr().As4()
	at := binary.BigEndian.Uint32(base[:]) + uint32(low+vipHash(d.Name, service, i)%n)
	return netip.AddrFrom4([4]byte{byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at)})
}

// probes is how many hashed candidates are tried before every address is.
const probes = 64

// allocate returns the first candidate of V1 for which free is true. The error
// is ErrExhausted if no address of the pool is free.
func allocate(d *NetworkDef, service string, free func(netip.Addr) bool) (netip.Addr, error) {
	var from uint64
	return allocateFrom(d, service, &from, free)
}

// allocateFrom is allocate for many services in a row: how many of the pool's
// addresses, in their order, are known not to be free is kept in passed, so that
// a pool that is used up is looked through once and not for each of them.
func allocateFrom(d *NetworkDef, service string, passed *uint64, free func(netip.Addr) bool) (netip.Addr, error) {
	for i := range uint64(probes) {
		if a := probe4(d, service, i); free(a) {
			return a, nil
		}
	}
	size := uint64(1) << (32 - d.Subnet4.Bits())
	low := lowBand(size)
	base := d.Subnet4.Addr().As4()
	first := binary.BigEndian.Uint32(base[:]) + uint32(low)
	for ; *passed < size-low-1; *passed++ {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], first+uint32(*passed))
		if a := netip.AddrFrom4(b); free(a) {
			return a, nil
		}
	}
	return netip.Addr{}, ErrExhausted
}

// better orders claims on one address by V3: pinned, then those that are not
// provisional, then the oldest birth, then the lowest hash of the service, then
// its name.
func (c *VIPClaim) better(o *VIPClaim, network string) int {
	last := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(last(!c.Pinned), last(!o.Pinned)), cmp.Compare(last(c.Provisional), last(o.Provisional)),
		cmp.Compare(c.Birth, o.Birth),
		cmp.Compare(vipHash(network, c.Service, 0), vipHash(network, o.Service, 0)),
		cmp.Compare(c.Service, o.Service), c.VIP4.Compare(o.VIP4), c.VIP6.Compare(o.VIP6))
}

// Assignment is what the claims give a service.
type Assignment struct {
	Canonical VIPClaim   // the zero claim: none
	Others    []VIPClaim // further claims that lose no address (V5)
	Losing    []VIPClaim // claims whose address another service holds, or outside the pool
}

// vipTable resolves claims to addresses (V3). It belongs to the table's goroutine.
type vipTable struct {
	def    NetworkDef
	claims map[VIPClaim]*heldClaim
	byAddr map[netip.Addr]contest
	used   uint64 // how many of byAddr are in the IPv4 pool
	bySvc  map[string][]*heldClaim
	freed  map[netip.Addr]string // IPv4 addresses that lost their last claim since takeFreed, and its service (V5)
}

// maxFreed bounds the freed addresses that are remembered: claims that come and
// go by the thousand must not fill the memory. What is over it does not rest.
const maxFreed = 1 << 16

func newVIPTable(def NetworkDef) *vipTable {
	return &vipTable{
		def: def, claims: map[VIPClaim]*heldClaim{}, byAddr: map[netip.Addr]contest{}, bySvc: map[string][]*heldClaim{},
		freed: map[netip.Addr]string{},
	}
}

func (c *VIPClaim) addrs() [2]netip.Addr { return [2]netip.Addr{c.VIP4, c.VIP6} }

// setDef installs the definition of the network, which says what its pools are.
func (v *vipTable) setDef(d NetworkDef) {
	v.def, v.used = d, 0
	for a := range v.byAddr {
		v.use(a, 1)
	}
}

func (v *vipTable) use(a netip.Addr, by int) {
	if v.def.Subnet4.IsValid() && v.def.Subnet4.Contains(a) {
		v.used += uint64(by)
	}
}

// add counts one more carrier of c and calls changed for the services whose
// assignment may differ now. remove is its inverse.
func (v *vipTable) add(c VIPClaim, body string, changed func(service string)) {
	if held := v.claims[c]; held != nil {
		held.carriers++
		return
	}
	held := &heldClaim{VIPClaim: c, body: body, carriers: 1, at: len(v.bySvc[c.Service])}
	v.claims[c] = held
	v.bySvc[c.Service] = append(v.bySvc[c.Service], held)
	changed(c.Service)
	for _, a := range c.addrs() {
		if !a.IsValid() {
			continue
		}
		x, claimed := v.byAddr[a]
		if !claimed {
			v.use(a, 1)
		}
		was := x.winner()
		x.add(held, v.def.Name)
		v.byAddr[a] = x
		x.reportWinner(was, changed)
		delete(v.freed, a)
	}
}

func (v *vipTable) remove(c VIPClaim, changed func(service string)) {
	held := v.claims[c]
	if held == nil {
		return
	}
	if held.carriers--; held.carriers > 0 {
		return
	}
	delete(v.claims, c)
	v.dropClaim(held)
	changed(c.Service)
	for _, a := range c.addrs() {
		x, claimed := v.byAddr[a]
		if !claimed {
			continue
		}
		was := x.winner()
		x.remove(held)
		x.reportWinner(was, changed)
		if !x.empty() {
			v.byAddr[a] = x
			continue
		}
		delete(v.byAddr, a)
		v.use(a, -1)
		if a.Is4() && v.def.Subnet4.IsValid() && v.def.Subnet4.Contains(a) && len(v.freed) < maxFreed {
			v.freed[a] = c.Service
		}
	}
}

// dropClaim drops a claim from those of its service.
func (v *vipTable) dropClaim(held *heldClaim) {
	of := v.bySvc[held.Service]
	last := of[len(of)-1]
	of[held.at], last.at = last, held.at
	of[len(of)-1] = nil
	if of = of[:len(of)-1]; len(of) == 0 {
		delete(v.bySvc, held.Service)
		return
	}
	v.bySvc[held.Service] = of
}

// takeFreed returns the addresses that lost their last claim since the last
// call and have none now.
func (v *vipTable) takeFreed() map[netip.Addr]string {
	f := v.freed
	v.freed = map[netip.Addr]string{}
	return f
}

// holds reports whether a service wins an address, or no service claims it.
func (v *vipTable) holds(service string, a netip.Addr) bool {
	x, claimed := v.byAddr[a]
	return !claimed || x.winner() == service
}

// assign returns what the claims give a service: a pure function of the claims.
func (v *vipTable) assign(service string) Assignment {
	var a Assignment
	cs := make([]VIPClaim, 0, len(v.bySvc[service]))
	for _, c := range v.bySvc[service] {
		cs = append(cs, c.VIPClaim)
	}
	slices.SortFunc(cs, v.prefer)
	for _, c := range cs {
		switch {
		case !v.inPool(c), !v.holds(service, c.VIP4), !v.holds(service, c.VIP6):
			a.Losing = append(a.Losing, c)
		case a.Canonical.Service == "":
			a.Canonical = c
		default:
			a.Others = append(a.Others, c)
		}
	}
	return a
}

// prefer orders the claims of one service: those that have an address of each
// pool, then the pinned, of these the newest (a person changed it), then V3.
func (v *vipTable) prefer(x, y VIPClaim) int {
	lacking := func(c *VIPClaim) int {
		if v.complete(c) {
			return 0
		}
		return 1
	}
	if n := cmp.Compare(lacking(&x), lacking(&y)); n != 0 {
		return n
	}
	if x.Pinned && y.Pinned && x.Birth != y.Birth {
		return cmp.Compare(y.Birth, x.Birth)
	}
	return x.better(&y, v.def.Name)
}

// complete reports whether a claim has an address of each pool.
func (v *vipTable) complete(c *VIPClaim) bool {
	return c.VIP4.IsValid() == v.def.Subnet4.IsValid() && c.VIP6.IsValid() == v.def.Subnet6.IsValid()
}

func (v *vipTable) inPool(c VIPClaim) bool {
	for _, a := range c.addrs() {
		if a.IsValid() && !v.def.Contains(a) {
			return false
		}
	}
	return c.VIP4.IsValid() || c.VIP6.IsValid()
}

// free reports whether no other service than the given one claims a.
func (v *vipTable) free(a netip.Addr, service string) bool {
	x := v.byAddr[a]
	return x.claimedOnlyBy(service)
}

// full reports whether every address of the IPv4 pool is claimed (V7).
func (v *vipTable) full() bool {
	n := PoolSize(&v.def)
	return n > 0 && v.used >= n
}

// PoolSize returns how many IPv4 addresses of a network's pool are given to
// services by V1, pinned ones aside.
func PoolSize(d *NetworkDef) uint64 {
	if !d.Subnet4.IsValid() {
		return 0
	}
	size := uint64(1) << (32 - d.Subnet4.Bits())
	return size - lowBand(size) - 1
}
