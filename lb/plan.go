package lb

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"meshd/lb/hostfacts"
	"meshd/state"
)

// Node is what a plan needs to know of this host.
type Node struct {
	// Src4 and Src6 are addresses of this host that backends can answer to. They
	// become the source of the host's own connections to a VIP. The zero Addr leaves
	// the choice to the kernel, which may take the VIP itself.
	Src4, Src6 netip.Addr
	// Drain is how long TCP connections of a removed backend may go on where
	// the service does not say. 0 means 30 s.
	Drain time.Duration
	// Self is the node's name. Its own tasks may have addresses of the loopback
	// device, as on hosts whose address a routing daemon announces. Tasks of other
	// nodes at such an address would lead to this host's own services.
	Self state.NodeID
	// AllowLoopback takes tasks at loopback addresses as backends, for trials on
	// one machine.
	AllowLoopback bool
}

// ServiceID names a service across networks.
type ServiceID struct {
	Network, Service string
}

// String formats id as "service.network".
func (id ServiceID) String() string { return id.Service + "." + id.Network }

// Conflict says that a service does not get an address because another one
// has it: one address never maps to two services (V5).
type Conflict struct {
	Loser, Winner ServiceID
	VIP           netip.Addr
}

// String formats the conflict for people.
func (c Conflict) String() string {
	return fmt.Sprintf("%s is not served at %s: the address belongs to %s", c.Loser, c.VIP, c.Winner)
}

// planner keeps a plan up to date at a cost that depends on what changed, not
// on what there is. After any sequence of calls, its table is that of a new planner
// for the same views. It is not safe for concurrent use.
type planner struct {
	// What is planned for.

	node     Node                         // this host; does not change
	facts    *hostfacts.Facts             // what the host is and needs, by SetFacts
	networks map[string]state.NetworkDef  // by name
	services map[ServiceID]*state.Service // all of these networks

	// Who gets which address. Invariant: no list is empty, and each is in the order
	// of claim.compare: the first has the address.

	claims    map[netip.Addr][]claim // of all services
	conflicts int                    // claims that are not first in their list

	// The plan. Invariant: keys holds each key of desired.Services exactly once.

	desired  *Table                          // handed out by Desired
	keys     map[ServiceID][]Key             // what each service has in desired
	refused  map[string][]hostfacts.Conflict // by network: what its pools conflict with
	dirty    map[Key]struct{}                // what changed in desired since TakeDirty
	stale    bool                            // the facts or a definition changed: everything is to be planned anew
	backends int                             // in desired; at most maxBackends

	// What there is no room for (L11).

	waiting      map[ServiceID]struct{} // services without room for some of their addresses
	waitingTried bool                   // they were planned again since half of the room was free
}

// claim is what a service states about an address that it has or had.
type claim struct {
	id        ServiceID
	canonical bool   // the service's VIP, not one of OtherVIPs
	birth     uint64 // of the network, in Lamport time
}

// compare ranks claims: canonical first, then the older network, then by name.
func (c claim) compare(o claim) int {
	if c.canonical != o.canonical {
		if c.canonical {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(c.birth, o.birth), cmp.Compare(c.id.Network, o.id.Network),
		cmp.Compare(c.id.Service, o.id.Service))
}

// newPlanner returns a planner without networks.
func newPlanner(node Node) *planner {
	if node.Drain <= 0 {
		node.Drain = defaultDrain
	}
	return &planner{
		node: node, desired: NewTable(),
		networks: map[string]state.NetworkDef{}, services: map[ServiceID]*state.Service{},
		claims: map[netip.Addr][]claim{}, keys: map[ServiceID][]Key{}, dirty: map[Key]struct{}{},
		facts: &hostfacts.Facts{}, refused: map[string][]hostfacts.Conflict{}, waiting: map[ServiceID]struct{}{},
	}
}

// Desired returns the planned table. It belongs to the planner: do not change
// it, and do not use it after the next call.
func (p *planner) Desired() *Table {
	p.refresh()
	return p.desired
}

// TakeDirty returns the keys that changed since the last call, sorted.
func (p *planner) TakeDirty() []Key {
	p.refresh()
	p.retryWaiting()
	keys := slices.SortedFunc(maps.Keys(p.dirty), Key.Compare)
	clear(p.dirty)
	return keys
}

// SetNetwork adds a network or changes its definition.
func (p *planner) SetNetwork(def state.NetworkDef) {
	old, ok := p.networks[def.Name]
	if ok && old == def {
		return
	}
	p.networks[def.Name] = def
	p.stale = true
	if ok && old.Birth != def.Birth { // rank of its claims
		for _, s := range p.servicesOf(def.Name) {
			p.Set(def.Name, s.Name, s)
		}
	}
}

// DropNetwork removes a network with its services.
func (p *planner) DropNetwork(network string) {
	for _, s := range p.servicesOf(network) {
		p.Set(network, s.Name, nil)
	}
	delete(p.networks, network)
	p.stale = true
}

// serviceNames returns the names of the planner's services of a network, unsorted.
func (p *planner) serviceNames(network string) []string {
	var names []string
	for _, s := range p.servicesOf(network) {
		names = append(names, s.Name)
	}
	return names
}

// servicesOf returns the services of a network, unsorted.
func (p *planner) servicesOf(network string) []*state.Service {
	var all []*state.Service
	for id, s := range p.services {
		if id.Network == network {
			all = append(all, s)
		}
	}
	return all
}

// Conflicts returns who does not get which address, sorted by address.
func (p *planner) Conflicts() []Conflict {
	var all []Conflict
	for vip, claims := range p.claims {
		for _, c := range claims[1:] {
			all = append(all, Conflict{Loser: c.id, Winner: claims[0].id, VIP: vip})
		}
	}
	slices.SortFunc(all, func(a, b Conflict) int {
		return cmp.Or(a.VIP.Compare(b.VIP), cmp.Compare(a.Loser.String(), b.Loser.String()))
	})
	return all
}

// Set plans a service anew; nil removes it. The network should be set first.
func (p *planner) Set(network, name string, s *state.Service) {
	id := ServiceID{Network: network, Service: name}
	touched := map[ServiceID]struct{}{id: {}}
	p.removeClaims(id, p.services[id], touched)
	delete(p.services, id)
	if s != nil {
		p.services[id] = s
		p.addClaims(id, s, touched)
	}
	for id := range touched {
		p.removePlanned(id)
	}
	for id := range touched {
		p.planService(id)
	}
}

// eachVIP calls f with each address of the service.
func eachVIP(s *state.Service, f func(a netip.Addr, canonical bool)) {
	if s == nil || s.Mode != state.ModeVIP {
		return
	}
	for _, a := range []netip.Addr{s.VIP4, s.VIP6} {
		if a.IsValid() {
			f(a, true)
		}
	}
	for _, a := range s.OtherVIPs {
		if a.IsValid() && a != s.VIP4 && a != s.VIP6 {
			f(a, false)
		}
	}
}

// removeClaims withdraws what a service claims, and adds to touched the services
// that have those addresses now.
func (p *planner) removeClaims(id ServiceID, s *state.Service, touched map[ServiceID]struct{}) {
	eachVIP(s, func(a netip.Addr, _ bool) {
		before := p.claims[a]
		rest := slices.DeleteFunc(slices.Clone(before), func(c claim) bool { return c.id == id })
		p.conflicts += max(len(rest)-1, 0) - max(len(before)-1, 0)
		if len(rest) == 0 {
			delete(p.claims, a)
			return
		}
		p.claims[a] = rest
		touched[rest[0].id] = struct{}{}
	})
}

// addClaims enters what a service claims, and adds to touched all services that
// claim the same addresses.
func (p *planner) addClaims(id ServiceID, s *state.Service, touched map[ServiceID]struct{}) {
	eachVIP(s, func(a netip.Addr, canonical bool) {
		c := claim{id: id, canonical: canonical, birth: p.networks[id.Network].Birth}
		claims := p.claims[a]
		if slices.ContainsFunc(claims, func(o claim) bool { return o.id == id }) {
			return
		}
		i, _ := slices.BinarySearchFunc(claims, c, claim.compare)
		p.claims[a] = slices.Insert(claims, i, c)
		p.conflicts += min(len(claims), 1)
		for _, o := range p.claims[a] {
			touched[o.id] = struct{}{}
		}
	})
}

// removePlanned takes what a service has out of the desired table.
func (p *planner) removePlanned(id ServiceID) {
	for _, k := range p.keys[id] {
		p.backends -= len(p.desired.Services[k].Backends)
		delete(p.desired.Services, k)
		p.dirty[k] = struct{}{}
	}
	delete(p.keys, id)
	delete(p.waiting, id)
}

// planService puts a service into the desired table at the addresses it has won.
func (p *planner) planService(id ServiceID) {
	s := p.services[id]
	var keys []Key
	eachVIP(s, func(a netip.Addr, _ bool) {
		if claims := p.claims[a]; len(claims) == 0 || claims[0].id != id || !p.inPlannedPool(id.Network, a) {
			return
		}
		all := p.withoutPlanned(p.planAddr(s, id, a))
		if !p.reserveBackends(id, all) {
			return
		}
		for _, planned := range all {
			p.desired.Services[planned.Key] = planned
			p.dirty[planned.Key] = struct{}{}
			keys = append(keys, planned.Key)
		}
	})
	if len(keys) > 0 {
		p.keys[id] = keys
	}
}
