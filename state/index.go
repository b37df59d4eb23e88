package state

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
)

// index is the readers' side of one table: what View promises. Everything
// reached through services, names and lookups is immutable and replaced; the
// rest belongs to the table's goroutine.
type index struct {
	network  string
	services *xsync.Map[string, *Service]
	names    *xsync.Map[string, *nameSet]
	addrs    addrIndex
	def      atomic.Pointer[NetworkDef]
	synced   atomic.Bool
	subs     *xsync.Map[*Subscription, struct{}]

	// The table's goroutine only.
	svcs    map[string]*svc
	clock   Clock
	dirty   []*svc
	vips    *vipTable
	globals func(*Entry) // told about records of the global scope, or nil
	claims  bool         // a claim, a setting or the definition changed since takeClaims
}

// svc is the writer's side of one service.
type svc struct {
	name     string
	added    []*Entry // to merge into the published members
	hidden   int      // endpoints whose owner is dead
	settings []*Entry // KindSettings of every carrier
	claims   int      // KindVIP records
	aliases  map[string]int
	dirty    bool
	last     time.Duration // of the last publication
}

// nameSet is what one alias, host name or container name stands for.
type nameSet struct {
	services  []string // by alias, sorted
	endpoints []*Entry // by host or container name, sorted by id
}

func newIndex(network string, clock Clock) *index {
	ix := &index{
		network: network, clock: clock, svcs: map[string]*svc{}, vips: newVIPTable(NetworkDef{Name: network}),
		services: xsync.NewMap[string, *Service](), names: xsync.NewMap[string, *nameSet](),
		subs: xsync.NewMap[*Subscription, struct{}](),
	}
	ix.addrs.init()
	ix.def.Store(&NetworkDef{Name: network})
	return ix
}

// Network implements View.
func (ix *index) Network() string { return ix.network }

// Def implements View.
func (ix *index) Def() NetworkDef { return *ix.def.Load() }

// Synced implements View.
func (ix *index) Synced() bool { return ix.synced.Load() }

// Service implements View.
func (ix *index) Service(name string) *Service {
	s, _ := ix.services.Load(name)
	return s
}

// Services implements View.
func (ix *index) Services() []*Service {
	var ss []*Service
	for _, s := range ix.services.All() {
		ss = append(ss, s)
	}
	slices.SortFunc(ss, func(a, b *Service) int { return strings.Compare(a.Name, b.Name) })
	return ss
}

// Subscribe implements View.
func (ix *index) Subscribe() *Subscription {
	var s *Subscription
	s = newSubscription(func() { ix.subs.Delete(s) })
	ix.subs.Store(s, struct{}{})
	return s
}

func (ix *index) notify(name string) {
	for s := range ix.subs.All() {
		s.mark(name)
	}
}

// setSynced records the first full exchange and tells subscribers.
func (ix *index) setSynced() {
	if !ix.synced.Swap(true) {
		ix.notify("")
	}
}

// setDef installs the effective definition; every VIP is judged anew.
func (ix *index) setDef(d NetworkDef) {
	if *ix.def.Load() == d {
		return
	}
	ix.def.Store(&d)
	ix.vips.def = d
	ix.claims = true
	for _, s := range ix.svcs {
		ix.mark(s)
	}
	ix.notify("")
}

func (ix *index) svc(name string) *svc {
	s := ix.svcs[name]
	if s == nil {
		s = &svc{name: name, aliases: map[string]int{}}
		ix.svcs[name] = s
	}
	return s
}

func (ix *index) mark(s *svc) {
	if !s.dirty {
		s.dirty = true
		ix.dirty = append(ix.dirty, s)
	}
}

func (ix *index) markName(name string) { ix.mark(ix.svc(name)) }

// change replaces old by cur in the views; either may be nil, not both.
func (ix *index) change(old, cur *Entry) {
	if old != nil && old.listed {
		ix.unlist(old)
	}
	if cur != nil && !cur.poison {
		ix.list(cur)
	}
}

func (ix *index) list(e *Entry) {
	e.listed = true
	switch e.Kind() {
	case KindEndpoint:
		ix.listEndpoint(e)
	case KindVIP:
		c, _ := ParseVIPClaim(e.Key(), e.Body())
		ix.svc(c.Service).claims++
		ix.claims = true
		ix.clock.Witness(c.Birth)
		ix.vips.add(c, ix.markName)
	case KindSettings:
		s := ix.svc(e.Key())
		s.settings = append(s.settings, e)
		c, _ := ParseSettings(e.Body())
		ix.clock.Witness(c.Lamport)
		ix.claims = true
		ix.mark(s)
	default:
		if ix.globals != nil {
			ix.globals(e)
		}
	}
}

func (ix *index) unlist(e *Entry) {
	e.listed = false
	switch e.Kind() {
	case KindEndpoint:
		ix.unlistEndpoint(e)
	case KindVIP:
		c, _ := ParseVIPClaim(e.Key(), e.Body())
		ix.svc(c.Service).claims--
		ix.claims = true
		ix.vips.remove(c, ix.markName)
	case KindSettings:
		s := ix.svc(e.Key())
		s.settings = slices.DeleteFunc(s.settings, func(o *Entry) bool { return o == e })
		ix.claims = true
		ix.mark(s)
	default:
		if ix.globals != nil {
			ix.globals(e)
		}
	}
}

func (ix *index) listEndpoint(e *Entry) {
	s := ix.svc(e.Group())
	if e.effective() == Hidden {
		s.hidden++
		e.hidden = true
		ix.mark(s)
		return
	}
	e.hidden = false
	s.added = append(s.added, e)
	ix.mark(s)
	ix.addrs.put(e)
	ix.nameEndpoint(s, e, true)
}

func (ix *index) unlistEndpoint(e *Entry) {
	s := ix.svc(e.Group())
	ix.mark(s)
	if e.hidden {
		s.hidden--
		return
	}
	ix.addrs.remove(e)
	ix.nameEndpoint(s, e, false)
}

// reclass re-lists an endpoint whose owner's liveness changed (S9).
func (ix *index) reclass(e *Entry) {
	if e.listed && e.Kind() == KindEndpoint {
		if e.hidden == (e.effective() == Hidden) {
			ix.mark(ix.svc(e.Group()))
			return
		}
		ix.unlist(e)
		ix.list(e)
	}
}

// effective is the class of an endpoint under its owner's liveness.
func (e *Entry) effective() Class {
	switch e.stream.status {
	case Alive:
		return e.class
	case Suspected:
		if e.class == Serving {
			return Suspect
		}
		return e.class
	}
	return Hidden
}

// nameEndpoint adds or removes the names under which an endpoint is found.
func (ix *index) nameEndpoint(s *svc, e *Entry, add bool) {
	if !e.named() {
		return
	}
	ep := e.Endpoint()
	for _, a := range ep.Aliases {
		was := s.aliases[a]
		if add {
			s.aliases[a]++
		} else if s.aliases[a]--; s.aliases[a] <= 0 {
			delete(s.aliases, a)
		}
		if now := s.aliases[a]; (was > 0) != (now > 0) {
			ix.nameService(a, s.name, now > 0)
		}
	}
	for i, n := range []string{ep.Name, ep.Hostname} {
		if n != "" && (i == 0 || n != ep.Name) {
			ix.nameTask(n, e, add)
		}
	}
}

func (ix *index) nameService(alias, service string, add bool) {
	ix.names.Compute(alias, func(old *nameSet, _ bool) (*nameSet, xsync.ComputeOp) {
		n := old.clone()
		n.services = slices.DeleteFunc(n.services, func(s string) bool { return s == service })
		if add {
			n.services = append(n.services, service)
			slices.Sort(n.services)
		}
		return n, n.op()
	})
}

func (ix *index) nameTask(name string, e *Entry, add bool) {
	ix.names.Compute(name, func(old *nameSet, _ bool) (*nameSet, xsync.ComputeOp) {
		n := old.clone()
		n.endpoints = slices.DeleteFunc(n.endpoints, func(o *Entry) bool { return o == e })
		if add {
			n.endpoints = append(n.endpoints, e)
			slices.SortFunc(n.endpoints, func(a, b *Entry) int { return strings.Compare(a.Key(), b.Key()) })
		}
		return n, n.op()
	})
}

func (n *nameSet) clone() *nameSet {
	if n == nil {
		return &nameSet{}
	}
	return &nameSet{services: slices.Clone(n.services), endpoints: slices.Clone(n.endpoints)}
}

func (n *nameSet) op() xsync.ComputeOp {
	if len(n.services)+len(n.endpoints) == 0 {
		return xsync.DeleteOp
	}
	return xsync.UpdateOp
}

// bigService is from how many members on a service is published at a bounded
// rate, and bigPeriod that rate's period (S14): each publication copies the
// member list.
const (
	bigService = 1000
	bigPeriod  = 100 * time.Millisecond
)

// publish makes the marked services visible and returns how long until the
// ones that were held back are due; 0 if there are none.
func (ix *index) publish(now time.Duration) (again time.Duration) {
	todo := ix.dirty
	ix.dirty = nil
	for _, s := range todo {
		if wait := s.last + bigPeriod - now; s.last > 0 && wait > 0 && ix.size(s) >= bigService {
			ix.dirty = append(ix.dirty, s)
			if again == 0 || wait < again {
				again = wait
			}
			continue
		}
		s.dirty, s.last = false, max(now, 1)
		ix.build(s)
	}
	return again
}

func (ix *index) size(s *svc) int {
	if old := ix.Service(s.name); old != nil {
		return len(old.Members) + len(s.added)
	}
	return 0
}

// build replaces the published view of one service.
func (ix *index) build(s *svc) {
	old := ix.Service(s.name)
	members := ix.members(s, old)
	if len(members) == 0 && s.hidden == 0 && s.claims == 0 && len(s.settings) == 0 {
		delete(ix.svcs, s.name)
		if old != nil {
			ix.addrs.putVIP(&Service{Name: s.name}, old)
			ix.services.Delete(s.name)
			ix.notify(s.name)
		}
		return
	}
	n := &Service{Network: ix.network, Name: s.name, Members: members}
	for _, e := range members {
		n.Count[e.effective()]++
	}
	n.Settings = s.effective().Settings
	ix.address(n)
	n.Ports = ports(members)
	for a := range s.aliases {
		n.Aliases = append(n.Aliases, a)
	}
	slices.Sort(n.Aliases)
	ix.services.Store(s.name, n)
	ix.notify(s.name)
}

// members merges what was published with what was added, dropping what is gone.
func (ix *index) members(s *svc, old *Service) []*Entry {
	n := len(s.added)
	if old != nil {
		n += len(old.Members)
	}
	ms := make([]*Entry, 0, n)
	keep := func(es []*Entry) {
		for _, e := range es {
			if e.listed && !e.hidden && !e.merged {
				e.merged = true
				ms = append(ms, e)
			}
		}
	}
	if old != nil {
		keep(old.Members)
	}
	keep(s.added)
	s.added = nil
	for _, e := range ms {
		e.merged = false
	}
	slices.SortFunc(ms, func(a, b *Entry) int {
		return cmp.Or(cmp.Compare(a.effective(), b.effective()), strings.Compare(a.Key(), b.Key()), strings.Compare(string(a.Owner()), string(b.Owner())))
	})
	return slices.Clip(ms)
}

// effective returns the settings with the highest Lamport time, then the
// larger body: the same on every node with the same claims (S8).
func (s *svc) effective() SettingsClaim {
	var best *Entry
	var bestClaim SettingsClaim
	for _, e := range s.settings {
		c, _ := ParseSettings(e.Body())
		if best == nil || c.Lamport > bestClaim.Lamport || c.Lamport == bestClaim.Lamport && e.Body() > best.Body() {
			best, bestClaim = e, c
		}
	}
	return bestClaim
}

// address fills the VIPs of a service from the claims (V3, V5, V7).
func (ix *index) address(n *Service) {
	defer func() { ix.addrs.putVIP(n, ix.Service(n.Name)) }()
	if n.Mode != ModeVIP {
		return
	}
	a := ix.vips.assign(n.Name)
	n.VIP4, n.VIP6 = a.Canonical.VIP4, a.Canonical.VIP6
	for _, c := range a.Others {
		for _, addr := range []netip.Addr{c.VIP4, c.VIP6} {
			if addr.IsValid() && addr != n.VIP4 && addr != n.VIP6 {
				n.OtherVIPs = append(n.OtherVIPs, addr)
			}
		}
	}
	switch {
	case !n.VIP4.IsValid() && !n.VIP6.IsValid() && len(a.Losing) > 0:
		n.Conflict = "its address belongs to an older or pinned service; a new one is being claimed"
	case !n.VIP4.IsValid() && ix.vips.def.Subnet4.IsValid():
		n.Conflict = "no IPv4 VIP: not claimed yet, or the pool " + ix.vips.def.Subnet4.String() + " is exhausted; answered like dnsrr"
	}
}

func ports(members []*Entry) []Port {
	var ps []Port
	var last string
	for _, e := range members {
		v, ok := findField(e.Body(), tagPort)
		if !ok || v == last && onlyOnePort(e.Body()) {
			continue
		}
		last = v
		ep := e.Endpoint()
		for _, p := range ep.Ports {
			if !slices.Contains(ps, p) {
				ps = append(ps, p)
			}
		}
	}
	slices.SortFunc(ps, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Number, b.Number), strings.Compare(a.Name, b.Name))
	})
	return ps
}

// onlyOnePort spares the decoding of members that declare the same one port.
func onlyOnePort(body string) bool {
	n := 0
	_ = eachField(body, func(tag byte, _ string) error {
		if tag == tagPort {
			n++
		}
		return nil
	})
	return n == 1
}

// named reports whether the endpoint has names beyond its id.
func (e *Entry) named() bool {
	named := false
	_ = eachField(e.Body(), func(tag byte, _ string) error {
		named = named || tag == tagAlias || tag == tagName || tag == tagHostname
		return nil
	})
	return named
}
