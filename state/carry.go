package state

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// This file owns which claims and settings this node states for the services that it
// hosts (V2–V5). It reads a table and returns changes; it writes nothing.

// Hosting is what this node does for one service: the reason to carry its
// claims (V2).
type Hosting struct {
	Tasks    int           // endpoints of the service on this node
	Until    time.Duration // without tasks: how long the claim is kept (V2)
	Settings *Settings     // what was asked for on this node and not yet stated; nil: nothing
	PinVIP   netip.Addr    // a VIP chosen by a person and not yet claimed; zero: none
}

// Carrier decides which claims and settings this node states for the services
// it hosts in one network. It is deterministic; it belongs to the table's
// goroutine.
type Carrier struct {
	// The caller sets these.
	Grace      time.Duration       // how long a service keeps its old address in a move (V5)
	Quarantine time.Duration       // how long a freed address is not given to another service (V5)
	Services   map[string]*Hosting // what this node does, by service
	// Provisional says that the node has not compared its table with anybody yet: what
	// it claims is provisional, and claimed anew when Provisional ends (V11).
	Provisional bool

	// Work is the cost of the last Carry in claims that it looked at. It tells the caller
	// how often it can afford one.
	Work int

	moving  map[string]time.Duration // service → when its own claim stopped being canonical
	retreat map[string]withdrawal    // service → the claim kept besides the current one
	freed   map[netip.Addr]release   // addresses that lost their last claim
}

type withdrawal struct {
	claim VIPClaim
	until time.Duration
}

type release struct {
	service string
	at      time.Duration
}

// NewCarrier returns a carrier without services.
func NewCarrier(grace, quarantine time.Duration) *Carrier {
	return &Carrier{
		Grace: grace, Quarantine: quarantine, Services: map[string]*Hosting{},
		moving: map[string]time.Duration{}, retreat: map[string]withdrawal{}, freed: map[netip.Addr]release{},
	}
}

// Exhausted lists the services that got no address, with the reason (V7).
type Exhausted map[string]error

// carrying is one run of Carry.
type carrying struct {
	*Carrier
	t     *Table        // whose claims are carried
	clock *belief       // the store's
	now   time.Duration // of this run; monotonic

	// What comes out.
	out   []Change
	again time.Duration // how long until the next run is due; 0: not by time

	// Which addresses are free.
	taken         map[netip.Addr]bool // addresses claimed in this run
	used          uint64              // so many of the pool's first addresses are known to be claimed
	usedOrResting uint64              // so many are known to be claimed or to rest
}

// Carry returns the changes that bring this node's own claims and settings in
// the table in line with V2–V5, when to look again (0: not by time), and the
// services for which the pool had no address.
func (c *Carrier) Carry(t *Table, now time.Duration) (changes []Change, again time.Duration, ex Exhausted) {
	r := &carrying{Carrier: c, t: t, clock: t.index.clock, now: now, taken: map[netip.Addr]bool{}}
	for a, service := range t.index.vips.takeFreed() {
		if _, known := c.freed[a]; known || len(c.freed) < maxFreed {
			c.freed[a] = release{service: service, at: now}
		}
	}
	c.Work = len(c.freed) / cheap
	for a, f := range c.freed {
		if f.at+c.Quarantine <= now {
			delete(c.freed, a)
		}
	}
	ex = Exhausted{}
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		if err := r.service(name, c.Services[name]); err != nil {
			ex[name] = err
		}
	}
	c.Work += int((r.used + r.usedOrResting) / cheap)
	return r.out, r.again, ex
}

// cheap is how many looks at an address cost as much as one at a claim.
const cheap = 16

// confirmed returns a claim that is no longer provisional if this node knows the
// claims of others: with a time of now, so that it is younger than theirs (V11).
func (r *carrying) confirmed(c VIPClaim) *VIPClaim {
	if c.Provisional && !r.Provisional {
		c.Provisional, c.Birth = false, r.clock.Tick()
	}
	return &c
}

func (r *carrying) later(at time.Duration) {
	if w := max(at-r.now, time.Millisecond); r.again == 0 || w < r.again {
		r.again = w
	}
}

func (r *carrying) state(k Kind, key, body string) {
	r.out = append(r.out, Change{Kind: k, Key: key, Body: body})
}

func (r *carrying) drop(k Kind, key string) {
	r.out = append(r.out, Change{Kind: k, Key: key, Delete: true})
}

// service states what this node carries for one service.
func (r *carrying) service(name string, h *Hosting) error {
	if h.Tasks == 0 && h.Until <= r.now {
		r.drop(KindVIP, name)
		r.drop(KindVIP, name+retreat)
		r.drop(KindSettings, name)
		delete(r.Services, name)
		delete(r.moving, name)
		delete(r.retreat, name)
		return nil
	}
	if h.Tasks == 0 {
		r.later(h.Until)
	}
	r.Work += 1 + len(r.t.index.vips.bySvc[name]) + r.t.index.carriers(name)/cheap
	set, problem := r.settings(name, h)
	var claim *VIPClaim
	var err error
	if set.Mode == ModeVIP {
		claim, err = r.claim(name, h)
	}
	if claim == nil {
		r.drop(KindVIP, name)
	} else {
		r.state(KindVIP, name, r.t.claimBody(*claim))
	}
	if w, ok := r.retreat[name]; ok && r.now < w.until && claim != nil && !sameAddrs(w.claim, *claim) {
		r.state(KindVIP, name+retreat, r.t.claimBody(w.claim))
		r.later(w.until)
	} else {
		r.drop(KindVIP, name+retreat)
		delete(r.retreat, name)
	}
	return errors.Join(problem, err)
}

// errTime says that a claim cannot be overridden: it bears the highest time.
var errTime = errors.New("what a node claims bears the highest time that there is: nothing can be later until that " +
	"node is gone")

// settings states the effective settings as they came, or newer ones if
// something else was asked for here (S8), and returns what is stated. A person
// may override a time that is not believed; no node carries one for its author
// (S16).
func (r *carrying) settings(name string, h *Hosting) (SettingsClaim, error) {
	have, body, ok := r.t.settings(name)
	want := h.Settings
	h.Settings = nil
	switch {
	case want != nil && (!ok || have.Settings != *want):
		lamport, later := r.clock.after(have.Lamport)
		if !later {
			return have, fmt.Errorf("settings: %w", errTime)
		}
		have = SettingsClaim{Settings: *want, Lamport: lamport}
		r.state(KindSettings, name, string(appendUnknown(AppendSettings(nil, have), body, lastSettingsTag)))
	case !ok:
		r.drop(KindSettings, name) // no one has asked for any settings
	case r.clock.believes(have.Lamport):
		r.state(KindSettings, name, body)
	}
	return have, nil
}

// claim returns the claim to carry, and why there is none or only half of one.
func (r *carrying) claim(name string, h *Hosting) (*VIPClaim, error) {
	own := ownClaim(r.t, name)
	a := r.t.Assignment(name)
	if pin := h.PinVIP; pin.IsValid() {
		h.PinVIP = netip.Addr{}
		if own == nil || !own.Pinned || own.VIP4 != pin && own.VIP6 != pin {
			if own != nil && (*own == a.Canonical || slices.Contains(a.Others, *own)) {
				r.retreat[name] = withdrawal{claim: *own, until: r.now + r.Grace}
			}
			return r.pinned(name, pin, a)
		}
	}
	if !r.clock.plausible(a.Canonical.Birth) {
		if own != nil && r.clock.plausible(own.Birth) {
			return own, nil // S16: it is not carried for its author
		}
		return r.probe(name, VIPClaim{})
	}
	if a.Canonical.Service == "" || !r.t.index.vips.complete(&a.Canonical) {
		return r.probe(name, a.Canonical)
	}
	if own == nil || *own == a.Canonical || !slices.Contains(a.Others, *own) || sameAddrs(*own, a.Canonical) {
		delete(r.moving, name)
		return r.confirmed(a.Canonical), nil
	}
	since, ok := r.moving[name]
	if !ok {
		since = r.now
		r.moving[name] = r.now
	}
	if r.now-since < r.Grace {
		r.later(since + r.Grace)
		return own, nil
	}
	delete(r.moving, name)
	return r.confirmed(a.Canonical), nil
}

// pinned returns the claim on an address that a person chose. The address of
// the other family stays as it was, or follows.
func (r *carrying) pinned(name string, pin netip.Addr, a Assignment) (*VIPClaim, error) {
	newest := uint64(0)
	for _, c := range append(a.Others, a.Canonical) {
		if c.Pinned {
			newest = max(newest, c.Birth)
		}
	}
	birth, later := r.clock.after(newest)
	if !later {
		return ownClaim(r.t, name), fmt.Errorf("vips: %w", errTime)
	}
	was := a.Canonical
	p := VIPClaim{Service: name, VIP4: was.VIP4, VIP6: was.VIP6, Pinned: true, Birth: birth}
	if pin.Is4() {
		p.VIP4 = pin
	} else {
		p.VIP6 = pin
	}
	if !p.VIP6.IsValid() {
		p.VIP6 = VIP6(&r.t.index.vips.def, name)
	}
	return &p, nil
}

func sameAddrs(a, b VIPClaim) bool { return a.VIP4 == b.VIP4 && a.VIP6 == b.VIP6 }

// probe completes the canonical claim half, which may be the zero claim: it
// claims the first free address (V1). Without one the service keeps what half
// has, and the error says so (V7).
func (r *carrying) probe(name string, half VIPClaim) (*VIPClaim, error) {
	def := &r.t.index.vips.def
	claim := half
	claim.Service = name
	if !claim.VIP6.IsValid() {
		claim.VIP6 = VIP6(def, name)
	}
	if def.Subnet4.IsValid() && !claim.VIP4.IsValid() {
		a, err := r.allocate(def, name)
		if err != nil {
			r.later(r.now + 5*time.Second)
			if !claim.VIP6.IsValid() {
				return nil, err
			}
			if half.Service == "" {
				claim.Birth, claim.Provisional = r.clock.Tick(), r.Provisional
			}
			return r.confirmed(claim), err
		}
		claim.VIP4, claim.Birth, claim.Provisional = a, r.clock.Tick(), r.Provisional
	}
	if !claim.VIP4.IsValid() && !claim.VIP6.IsValid() {
		return nil, nil
	}
	if claim.Birth == 0 {
		claim.Birth, claim.Provisional = r.clock.Tick(), r.Provisional
	}
	return r.confirmed(claim), nil
}

// allocate finds a free address that no other service used lately; if there is
// none, one that was used (V5), which is better than none.
func (r *carrying) allocate(def *NetworkDef, name string) (netip.Addr, error) {
	free := func(a netip.Addr) bool { return !r.taken[a] && r.t.index.vips.free(a, name) }
	a, err := allocateFrom(def, name, &r.usedOrResting, func(a netip.Addr) bool {
		f, quarantined := r.freed[a]
		return (!quarantined || f.service == name) && free(a)
	})
	if errors.Is(err, ErrExhausted) {
		a, err = allocateFrom(def, name, &r.used, free)
	}
	if err == nil {
		r.taken[a] = true
	}
	return a, err
}

// ownClaim returns this node's own claim for a service, or nil.
func ownClaim(t *Table, service string) *VIPClaim {
	e := t.ownEntry(KindVIP, service)
	if e == nil {
		return nil
	}
	c, _ := ParseVIPClaim(service, e.Body())
	return &c
}

// claimBody returns the body to carry c with: as this node carries it, or else
// as another node states it, so that fields of newer versions survive (V2, S11).
func (t *Table) claimBody(c VIPClaim) string {
	for _, key := range []string{c.Service, c.Service + retreat} {
		if e := t.ownEntry(KindVIP, key); e != nil {
			if own, _ := ParseVIPClaim(key, e.Body()); own == c {
				return e.Body()
			}
		}
	}
	if held := t.index.vips.claims[c]; held != nil {
		return held.body
	}
	return string(appendUnknown(AppendVIPClaim(nil, c), t.replacedClaim(c.Service), lastVIPTag))
}

// replacedClaim returns the body of the claim that a new one of this node takes
// the place of: its own, or else the canonical one; empty: there is none.
func (t *Table) replacedClaim(service string) string {
	if e := t.ownEntry(KindVIP, service); e != nil {
		return e.Body()
	}
	if held := t.index.vips.claims[t.Assignment(service).Canonical]; held != nil {
		return held.body
	}
	return ""
}
