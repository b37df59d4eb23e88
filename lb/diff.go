package lb

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"meshd/state"
)

// OpKind says what an Op does. The kinds are in the order in which Diff
// returns them.
type OpKind uint8

// The operations. All are idempotent.
const (
	SetPool    OpKind = iota // Op.Pool: route, guard, masquerade; create or change
	SetService               // Op.Service: create, or change scheduler and affinity, without its backends
	SetBackend               // Op.Key, Op.Backend: add or change the weight; weight 0 drains
	DelBackend               // Op.Key, Op.Backend.Addr
	DelService               // Op.Key: with whatever backends are left
	DelPool                  // Op.Pool.Prefix
)

// String returns the kind's name, as "set-pool".
func (k OpKind) String() string {
	return [...]string{"set-pool", "set-service", "set-backend", "del-backend", "del-service", "del-pool"}[min(k, DelPool)]
}

// Op is one change to the kernel's table.
type Op struct {
	Kind    OpKind
	Key     Key      // of service and backend operations
	Service *Service // of SetService; drivers ignore its backends
	Backend Backend  // of SetBackend and DelBackend
	Pool    Pool     // of SetPool and DelPool
}

// String formats the operation for logs.
func (o Op) String() string {
	switch o.Kind {
	case SetPool, DelPool:
		return fmt.Sprintf("%s %s", o.Kind, o.Pool.Prefix)
	case SetBackend:
		return fmt.Sprintf("%s %s %s weight %d", o.Kind, o.Key, o.Backend.Addr, o.Backend.Weight)
	case DelBackend:
		return fmt.Sprintf("%s %s %s", o.Kind, o.Key, o.Backend.Addr)
	}
	return fmt.Sprintf("%s %s", o.Kind, o.Key)
}

// Policy are the questions that Diff asks about removals. A nil function answers
// false.
type Policy struct {
	// Drained reports whether a backend that is not in the plan any more and has
	// weight 0 may go, since it is idle or its deadline has passed (L5).
	Drained func(Key, netip.AddrPort) bool
	// MustKeep reports whether nothing of this address may be removed yet, because
	// the network's view is not complete after the start of the daemon (L1).
	MustKeep func(netip.Addr) bool
	// MustRemove reports whether what is not in the plan of this address must go at
	// once, whatever Drained and MustKeep say: its pool conflicts with the host (L9).
	MustRemove func(netip.Addr) bool
}

func (p Policy) mayRemove(k Key, a netip.AddrPort) bool { return p.Drained != nil && p.Drained(k, a) }

func (p Policy) mustKeep(a netip.Addr) bool {
	return p.MustKeep != nil && p.MustKeep(a) && !p.mustRemove(a)
}

func (p Policy) mustRemove(a netip.Addr) bool { return p.MustRemove != nil && p.MustRemove(a) }

// Diff returns the operations that turn actual into desired, in an order that
// is safe at every prefix (L1, L2): pools before services, services before
// their backends, added or raised backends before lowered ones before
// removals, pools last. A TCP backend is first set to weight 0, and removed
// only when p.Drained says so; its service stays until then. A UDP backend is
// removed at once (L5).
//
// Diff is pure; neither table is changed.
func Diff(actual, desired *Table, p Policy) []Op {
	return diffKeys(actual, desired, slices.SortedFunc(keysOf(actual.Services, desired.Services), Key.Compare), p)
}

// diffKeys is Diff for the services of some keys only. It goes through them twice,
// to count and to collect, because operations are large and a cold start has a
// hundred thousand of them: so each is written once, in its place.
func diffKeys(actual, desired *Table, keys []Key, p Policy) []Op {
	d := differ{actual: actual, desired: desired, policy: p}
	d.compareAll(keys)
	d.allocate()
	d.compareAll(keys)
	return d.ops()
}

// differ collects operations by phase.
type differ struct {
	actual, desired *Table
	policy          Policy
	counts          [phases]int  // operations of each phase, by the first pass
	all             []Op         // room for all phases; nil during the first pass
	phase           [phases][]Op // parts of all
}

// compareAll makes one pass over the pools and the services of these keys.
func (d *differ) compareAll(keys []Key) {
	d.comparePools()
	for _, k := range keys {
		d.compareService(k)
	}
}

// allocate gives each phase its place in the list.
func (d *differ) allocate() {
	total := 0
	for _, n := range d.counts {
		total += n
	}
	d.all = make([]Op, total)
	at := 0
	for i, n := range d.counts {
		d.phase[i] = d.all[at : at : at+n]
		at += n
	}
}

// The phases of a diff.
const (
	phasePool = iota
	phaseService
	phaseRaise
	phaseLower
	phaseDelBackend
	phaseDelService
	phaseDelPool
	phases
)

// addOp counts an operation in the first pass, and collects it in the second.
func (d *differ) addOp(phase int, op Op) {
	if d.all == nil {
		d.counts[phase]++
		return
	}
	d.phase[phase] = append(d.phase[phase], op)
}

// ops returns the operations in order. If the policy answered differently in the
// second pass, a phase has outgrown its place, and the phases are put together anew.
func (d *differ) ops() []Op {
	for i, n := range d.counts {
		if len(d.phase[i]) != n {
			return slices.Concat(d.phase[:]...)
		}
	}
	return d.all
}

// comparePools sets the pools that are missing or have another source, and removes
// those that no service uses any more.
func (d *differ) comparePools() {
	for _, prefix := range sortedPrefixes(d.desired.Pools) {
		want := d.desired.Pools[prefix]
		have, ok := d.actual.Pools[prefix]
		if !ok || have.Src != want.Src {
			d.addOp(phasePool, Op{Kind: SetPool, Pool: want})
		}
	}
	for _, prefix := range sortedPrefixes(d.actual.Pools) {
		if _, ok := d.desired.Pools[prefix]; ok {
			continue
		}
		if d.policy.mustKeep(prefix.Addr()) || d.poolInUse(prefix) && !d.policy.mustRemove(prefix.Addr()) {
			continue
		}
		d.addOp(phaseDelPool, Op{Kind: DelPool, Pool: d.actual.Pools[prefix]})
	}
}

// poolInUse reports whether the kernel has services of the pool.
func (d *differ) poolInUse(p netip.Prefix) bool {
	for k := range d.actual.Services {
		if p.Contains(k.VIP) {
			return true
		}
	}
	return false
}

func sortedPrefixes(pools map[netip.Prefix]Pool) []netip.Prefix {
	return slices.SortedFunc(maps.Keys(pools), comparePrefixes)
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
}

func (d *differ) compareService(k Key) {
	have, want := d.actual.Services[k], d.desired.Services[k]
	if have == want {
		return
	}
	if want == nil {
		d.removeService(have)
		return
	}
	if have == nil || !have.sameSettings(want) {
		d.addOp(phaseService, Op{Kind: SetService, Key: k, Service: want})
	}
	if have == nil {
		have = &Service{}
	}
	d.compareBackends(k, have.Backends, want.Backends)
}

// compareBackends merges two sorted lists.
func (d *differ) compareBackends(k Key, have, want []Backend) {
	for len(have) > 0 || len(want) > 0 {
		order := 0
		switch {
		case len(have) == 0:
			order = 1
		case len(want) == 0:
			order = -1
		default:
			order = have[0].Addr.Compare(want[0].Addr)
		}
		switch {
		case order < 0:
			d.removeBackend(k, have[0])
			have = have[1:]
		case order > 0:
			d.addOp(phaseRaise, Op{Kind: SetBackend, Key: k, Backend: want[0]})
			want = want[1:]
		default:
			d.changeWeight(k, have[0], want[0])
			have, want = have[1:], want[1:]
		}
	}
}

func (d *differ) changeWeight(k Key, have, want Backend) {
	switch {
	case have.Weight < want.Weight:
		d.addOp(phaseRaise, Op{Kind: SetBackend, Key: k, Backend: want})
	case have.Weight > want.Weight:
		d.addOp(phaseLower, Op{Kind: SetBackend, Key: k, Backend: want})
	}
}

// removeBackend removes or drains a backend, and reports whether it is removed.
func (d *differ) removeBackend(k Key, b Backend) (gone bool) {
	switch {
	case d.policy.mustKeep(k.VIP):
		return false
	case k.Proto == state.UDP, d.policy.mustRemove(k.VIP), b.Weight == 0 && d.policy.mayRemove(k, b.Addr):
		d.addOp(phaseDelBackend, Op{Kind: DelBackend, Key: k, Backend: b})
		return true
	case b.Weight > 0:
		d.addOp(phaseLower, Op{Kind: SetBackend, Key: k, Backend: Backend{Addr: b.Addr}})
	}
	return false
}

// removeService removes a service once all of its backends are gone.
func (d *differ) removeService(s *Service) {
	if d.policy.mustKeep(s.VIP) {
		return
	}
	empty := true
	for _, b := range s.Backends {
		empty = d.removeBackend(s.Key, b) && empty
	}
	if empty {
		d.addOp(phaseDelService, Op{Kind: DelService, Key: s.Key})
	}
}
