// Package lb turns the views of the networks into kernel load balancing.
//
// It works on levels, not on events: a plan says what the kernel should hold, a
// Driver says what it does hold, Diff is the ordered list of operations
// between the two, and the Balancer applies it, retries what failed and audits
// the result (rules L1–L15 of docs/DESIGN.md). Nothing is ever flushed, and
// nothing is deleted to be added again.
//
//	views ─▶ planner ─▶ desired ─▶ Diff ─▶ []Op ─▶ Driver ─▶ kernel
//	                                ▲                 │
//	                                └──── shadow ◀────┘
//
// A Balancer is one goroutine, Run, that wires parts with their own state: the
// feed from the views, the planner, the reconciler, drains, the choice and the
// retirement of drivers, the auditor. Each part says when it wants to be called
// next; the balancer keeps these times as alarms.
//
// The drivers are lb/ipvs and lb/nft; lb/lbtest has a fake one for tests.
package lb

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"meshd/state"
)

// Key identifies one load-balanced service of the kernel: a virtual address
// with one port of one protocol, or, with Port zero, every port of the protocol
// (L3).
type Key struct {
	VIP   netip.Addr
	Port  uint16
	Proto state.Proto
}

// AllPorts reports whether k stands for every port of its address and protocol.
func (k Key) AllPorts() bool { return k.Port == 0 }

// String formats k as "10.96.0.1:80/tcp" or "10.96.0.1:all/tcp", with the
// address of IPv6 in brackets.
func (k Key) String() string {
	switch {
	case k.AllPorts() && k.VIP.Is6():
		return fmt.Sprintf("[%s]:all/%s", k.VIP, k.Proto)
	case k.AllPorts():
		return fmt.Sprintf("%s:all/%s", k.VIP, k.Proto)
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(k.VIP, k.Port), k.Proto)
}

// Compare orders keys by address, port and protocol.
func (k Key) Compare(o Key) int {
	return cmp.Or(k.VIP.Compare(o.VIP), cmp.Compare(k.Port, o.Port), cmp.Compare(k.Proto, o.Proto))
}

// Backend is one destination of a service. Several may have one address with ports of
// their own. Its port is 0 in a service for all ports: the client's port is kept.
type Backend struct {
	Addr   netip.AddrPort // where the task listens, which may be another port than the service's (L16)
	Weight uint32         // relative share of new connections; 0: none, open ones go on (L5)
}

// Service is one load-balanced service as it is or should be in the kernel.
// Values in a Table are immutable; a changed service is a new value.
type Service struct {
	Key
	Network   string        // label, not in the kernel; "" in a snapshot
	Name      string        // label, not in the kernel; "" in a snapshot
	Drain     time.Duration // label: how long a removed backend keeps its TCP connections
	Scheduler string        // IPVS name, never empty (L6)
	Affinity  time.Duration // how long a client keeps its backend; 0: no affinity
	Backends  []Backend     // sorted by address, without repeats
}

// Backend returns the backend with that address.
func (s *Service) Backend(a netip.AddrPort) (Backend, bool) {
	i, ok := slices.BinarySearchFunc(s.Backends, a, func(b Backend, a netip.AddrPort) int { return b.Addr.Compare(a) })
	if !ok {
		return Backend{}, false
	}
	return s.Backends[i], true
}

// hasBackend reports whether a service, which may be nil, has a backend with that
// address.
func (s *Service) hasBackend(a netip.AddrPort) bool {
	if s == nil {
		return false
	}
	_, there := s.Backend(a)
	return there
}

// closing reports whether the service takes no new connections.
func (s *Service) closing() bool {
	return !slices.ContainsFunc(s.Backends, func(b Backend) bool { return b.Weight > 0 })
}

// sameSettings reports whether the kernel would see no difference between the
// two services but for their backends.
func (s *Service) sameSettings(o *Service) bool {
	return s.Scheduler == o.Scheduler && s.Affinity == o.Affinity
}

// Equal reports whether the kernel would see no difference between the two.
func (s *Service) Equal(o *Service) bool {
	return s == o || s.Key == o.Key && s.sameSettings(o) && slices.Equal(s.Backends, o.Backends)
}

// Pool is a range of virtual addresses that this node serves. Its local route, its
// guard and its masquerade are made and removed with it (L2).
type Pool struct {
	Prefix  netip.Prefix
	Src     netip.Addr // source address of the own host's clients; the zero Addr: the kernel's choice
	Network string     // label, not in the kernel; "" in a snapshot
}

// Table is a set of pools and services. It is not safe for concurrent use;
// the services in it are immutable.
type Table struct {
	Pools    map[netip.Prefix]Pool
	Services map[Key]*Service
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{Pools: map[netip.Prefix]Pool{}, Services: map[Key]*Service{}}
}

// Clone returns a table that can be changed independently of t.
func (t *Table) Clone() *Table {
	return &Table{Pools: maps.Clone(t.Pools), Services: maps.Clone(t.Services)}
}

// Keys returns the keys of the services, sorted.
func (t *Table) Keys() []Key { return slices.SortedFunc(maps.Keys(t.Services), Key.Compare) }

// Apply changes t as a kernel would that carries out ops, and returns nil or
// one error (or nil) per operation. Operations are idempotent: setting what is
// set and deleting what is missing change nothing. A backend of a missing
// service is an error that names the service and wraps ErrDrift. Operations
// whose place in skip holds an error are left out: they have failed elsewhere.
func (t *Table) Apply(ops []Op, skip []error) []error {
	var errs []error
	c := tableChange{Table: t, owned: map[Key]*Service{}}
	for i := range ops {
		if errorAt(skip, i) != nil {
			continue
		}
		if err := c.apply(ops[i:]); err != nil {
			if errs == nil {
				errs = make([]error, len(ops))
			}
			errs[i] = err
		}
	}
	return errs
}

// tableChange is one call of Table.Apply.
type tableChange struct {
	*Table

	owned map[Key]*Service // copies that may be changed until the end of the call
	last  *Service         // the one of the operation before; nil: none
}

// apply carries out the first of ops.
func (c *tableChange) apply(ops []Op) error {
	op := &ops[0]
	switch op.Kind {
	case SetPool:
		c.Pools[op.Pool.Prefix] = op.Pool
		return nil
	case DelPool:
		delete(c.Pools, op.Pool.Prefix)
		return nil
	case DelService:
		delete(c.Services, op.Key)
		delete(c.owned, op.Key)
		c.last = nil
		return nil
	}
	s := c.ownedCopy(ops)
	switch {
	case op.Kind == SetService:
		backends := s.Backends
		*s = *op.Service
		s.Backends = backends
	case s != nil:
		if op.Kind == SetBackend && len(s.Backends) == cap(s.Backends) {
			s.Backends = slices.Grow(s.Backends, backendsAhead(ops))
		}
		s.applyBackend(op.Kind, op.Backend)
	case op.Kind == SetBackend:
		return fmt.Errorf("%w: backend %s: service %s is not there", ErrDrift, op.Backend.Addr, op.Key)
	}
	return nil
}

// backendsAhead returns how many of the first operations set backends of one
// service.
func backendsAhead(ops []Op) int {
	n := 1
	for n < len(ops) && ops[n].Kind == SetBackend && ops[n].Key == ops[0].Key {
		n++
	}
	return n
}

// ownedCopy returns a copy of the first operation's service that may be changed, or
// nil if there is none and the operation does not make one.
func (c *tableChange) ownedCopy(ops []Op) *Service {
	op := &ops[0]
	if c.last != nil && c.last.Key == op.Key {
		return c.last
	}
	if c.last = c.owned[op.Key]; c.last != nil {
		return c.last
	}
	s := &Service{Key: op.Key}
	if old := c.Services[op.Key]; old != nil {
		*s = *old
		s.Backends = append(make([]Backend, 0, len(old.Backends)+backendsAhead(ops)), old.Backends...)
	} else if op.Kind != SetService {
		return nil
	} else {
		s.Backends = make([]Backend, 0, len(op.Service.Backends)) // they are likely to follow
	}
	c.Services[op.Key], c.owned[op.Key], c.last = s, s, s
	return s
}

// applyBackend sets or removes one backend, in place.
func (s *Service) applyBackend(kind OpKind, b Backend) {
	i, found := slices.BinarySearchFunc(s.Backends, b.Addr,
		func(b Backend, a netip.AddrPort) int { return b.Addr.Compare(a) })
	switch {
	case kind == DelBackend && found:
		s.Backends = slices.Delete(s.Backends, i, i+1)
	case kind == SetBackend && found:
		s.Backends[i] = b
	case kind == SetBackend:
		s.Backends = slices.Insert(s.Backends, i, b)
	}
}
