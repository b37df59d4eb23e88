package state

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"
)

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
	Grace    time.Duration       // how long a service keeps its old address in a move (V5)
	Services map[string]*Hosting // by service; the caller fills it
	Quarant  time.Duration       // how long a freed address is not given to another service (V5)

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
		Grace: grace, Quarant: quarantine, Services: map[string]*Hosting{},
		moving: map[string]time.Duration{}, retreat: map[string]withdrawal{}, freed: map[netip.Addr]release{},
	}
}

// Exhausted lists the services that got no address, with the reason (V7).
type Exhausted map[string]error

// carrying is one run of Carry.
type carrying struct {
	*Carrier
	t     *Table
	clock Clock
	now   time.Duration
	again time.Duration
	out   []Change
	taken map[netip.Addr]bool // addresses claimed in this run
}

// Carry returns the changes that bring this node's own claims and settings in
// the table in line with V2–V5, when to look again (0: not by time), and the
// services for which the pool had no address.
func (c *Carrier) Carry(t *Table, clock Clock, now time.Duration) (changes []Change, again time.Duration, ex Exhausted) {
	r := &carrying{Carrier: c, t: t, clock: clock, now: now, taken: map[netip.Addr]bool{}}
	for a, service := range t.index.vips.takeFreed() {
		c.freed[a] = release{service: service, at: now}
	}
	for a, f := range c.freed {
		if f.at+c.Quarant <= now {
			delete(c.freed, a)
		}
	}
	ex = Exhausted{}
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		if err := r.service(name, c.Services[name]); err != nil {
			ex[name] = err
		}
	}
	return r.out, r.again, ex
}

func (r *carrying) later(at time.Duration) {
	if w := max(at-r.now, time.Millisecond); r.again == 0 || w < r.again {
		r.again = w
	}
}

func (r *carrying) state(k Kind, key string, body []byte) {
	r.out = append(r.out, Change{Kind: k, Key: key, Body: string(body)})
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
	set := r.settings(name, h)
	if set == (SettingsClaim{}) {
		r.drop(KindSettings, name) // nobody asked for anything
	} else {
		r.state(KindSettings, name, AppendSettings(nil, set))
	}
	var claim *VIPClaim
	var err error
	if set.Mode == ModeVIP {
		claim, err = r.claim(name, h)
	}
	if claim == nil {
		r.drop(KindVIP, name)
	} else {
		r.state(KindVIP, name, AppendVIPClaim(nil, *claim))
	}
	if w, ok := r.retreat[name]; ok && r.now < w.until && claim != nil && !sameAddrs(w.claim, *claim) {
		r.state(KindVIP, name+retreat, AppendVIPClaim(nil, w.claim))
		r.later(w.until)
	} else {
		r.drop(KindVIP, name+retreat)
		delete(r.retreat, name)
	}
	return err
}

// settings returns the settings to state: the effective ones, or newer ones if
// something else was asked for here (S8). The zero claim: nothing to state.
func (r *carrying) settings(name string, h *Hosting) SettingsClaim {
	have, ok := r.t.Settings(name)
	if want := h.Settings; want != nil && (!ok || have.Settings != *want) {
		have = SettingsClaim{Settings: *want, Lamport: r.clock.Tick()}
	}
	h.Settings = nil
	return have
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
			return r.pinned(name, pin, a.Canonical), nil
		}
	}
	if a.Canonical.Service == "" || !r.t.index.vips.complete(&a.Canonical) {
		return r.probe(name, a.Canonical)
	}
	if own == nil || *own == a.Canonical || !slices.Contains(a.Others, *own) || sameAddrs(*own, a.Canonical) {
		delete(r.moving, name)
		return &a.Canonical, nil
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
	return &a.Canonical, nil
}

// pinned returns the claim on an address that a person chose. The address of
// the other family stays as it was, or follows.
func (r *carrying) pinned(name string, pin netip.Addr, was VIPClaim) *VIPClaim {
	p := VIPClaim{Service: name, VIP4: was.VIP4, VIP6: was.VIP6, Pinned: true, Birth: r.clock.Tick()}
	if pin.Is4() {
		p.VIP4 = pin
	} else {
		p.VIP6 = pin
	}
	if !p.VIP6.IsValid() {
		p.VIP6 = VIP6(&r.t.index.vips.def, name)
	}
	return &p
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
				claim.Birth = r.clock.Tick()
			}
			return &claim, err
		}
		claim.VIP4, claim.Birth = a, r.clock.Tick()
	}
	if !claim.VIP4.IsValid() && !claim.VIP6.IsValid() {
		return nil, nil
	}
	if claim.Birth == 0 {
		claim.Birth = r.clock.Tick()
	}
	return &claim, nil
}

// allocate finds a free address that no other service used lately; if there is
// none, one that was used (V5), which is better than none.
func (r *carrying) allocate(def *NetworkDef, name string) (netip.Addr, error) {
	free := func(a netip.Addr) bool { return !r.taken[a] && r.t.index.vips.free(a, name) }
	a, err := Allocate(def, name, func(a netip.Addr) bool {
		f, quarantined := r.freed[a]
		return (!quarantined || f.service == name) && free(a)
	})
	if errors.Is(err, ErrExhausted) {
		a, err = Allocate(def, name, free)
	}
	if err == nil {
		r.taken[a] = true
	}
	return a, err
}

// ownClaim returns this node's own claim for a service, or nil.
func ownClaim(t *Table, service string) *VIPClaim {
	s := t.streams[t.self]
	if s == nil {
		return nil
	}
	e := s.live[string([]byte{byte(KindVIP)})+service]
	if e == nil || e.poison {
		return nil
	}
	c, _ := ParseVIPClaim(service, e.Body())
	return &c
}
