package state

import (
	"errors"
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
	Grace    time.Duration            // how long a service keeps its old address in a move (V5)
	Services map[string]*Hosting      // by service; the caller fills it
	moving   map[string]time.Duration // service → when its own claim stopped being canonical
	freed    map[netip.Addr]time.Duration
	Quarant  time.Duration // how long a freed address is not given to another service (V5)
}

// NewCarrier returns a carrier without services.
func NewCarrier(grace, quarantine time.Duration) *Carrier {
	return &Carrier{
		Grace: grace, Quarant: quarantine, Services: map[string]*Hosting{},
		moving: map[string]time.Duration{}, freed: map[netip.Addr]time.Duration{},
	}
}

// Exhausted lists the services that got no address, with the reason (V7).
type Exhausted map[string]error

// Carry returns the changes that bring this node's own claims and settings in
// the table in line with V2–V5, when to look again (0: not by time), and the
// services for which the pool had no address.
func (c *Carrier) Carry(t *Table, clock Clock, now time.Duration) (changes []Change, again time.Duration, ex Exhausted) {
	ex = Exhausted{}
	later := func(at time.Duration) {
		if w := max(at-now, time.Millisecond); again == 0 || w < again {
			again = w
		}
	}
	for _, name := range sortedKeys(c.Services) {
		h := c.Services[name]
		if h.Tasks == 0 {
			if h.Until <= now {
				changes = append(changes, Change{Kind: KindVIP, Key: name, Delete: true}, Change{Kind: KindSettings, Key: name, Delete: true})
				c.free(t, name, now)
				delete(c.Services, name)
				continue
			}
			later(h.Until)
		}
		set := c.settings(t, name, h, clock)
		changes = append(changes, Change{Kind: KindSettings, Key: name, Body: string(AppendSettings(nil, set))})
		if set.Mode != ModeVIP {
			changes = append(changes, Change{Kind: KindVIP, Key: name, Delete: true})
			continue
		}
		claim, at, err := c.claim(t, name, h, clock, now)
		if err != nil {
			ex[name] = err
		}
		if at > 0 {
			later(at)
		}
		if claim == nil {
			changes = append(changes, Change{Kind: KindVIP, Key: name, Delete: true})
			continue
		}
		changes = append(changes, Change{Kind: KindVIP, Key: name, Body: string(AppendVIPClaim(nil, *claim))})
	}
	for a, at := range c.freed {
		if at+c.Quarant <= now {
			delete(c.freed, a)
		}
	}
	return changes, again, ex
}

// settings returns the settings to state: the effective ones, or newer ones if
// something else was asked for here (S8).
func (c *Carrier) settings(t *Table, name string, h *Hosting, clock Clock) SettingsClaim {
	have, ok := t.Settings(name)
	want := h.Settings
	h.Settings = nil
	switch {
	case want != nil && (!ok || have.Settings != *want):
		have = SettingsClaim{Settings: *want, Lamport: clock.Tick()}
	case !ok:
		have = SettingsClaim{Lamport: clock.Tick()}
	}
	return have
}

// claim returns the claim to carry, when to look again (0: not by time), and
// why there is none.
func (c *Carrier) claim(t *Table, name string, h *Hosting, clock Clock, now time.Duration) (*VIPClaim, time.Duration, error) {
	own := ownClaim(t, name)
	if h.PinVIP.IsValid() {
		pin := h.PinVIP
		h.PinVIP = netip.Addr{}
		p := &VIPClaim{Service: name, VIP4: pin, Pinned: true, Birth: clock.Tick()}
		p.VIP6 = VIP6(&t.index.vips.def, name)
		return p, 0, nil
	}
	a := t.Assignment(name)
	if a.Canonical.Service != "" {
		if own == nil || *own == a.Canonical || !slices.Contains(a.Others, *own) || sameAddrs(*own, a.Canonical) {
			delete(c.moving, name)
			return &a.Canonical, 0, nil
		}
		since, ok := c.moving[name]
		if !ok {
			since = now
			c.moving[name] = now
		}
		if now-since < c.Grace {
			return own, since + c.Grace, nil
		}
		delete(c.moving, name)
		return &a.Canonical, 0, nil
	}
	return c.probe(t, name, clock, now)
}

func sameAddrs(a, b VIPClaim) bool { return a.VIP4 == b.VIP4 && a.VIP6 == b.VIP6 }

// probe claims the first free address (V1).
func (c *Carrier) probe(t *Table, name string, clock Clock, now time.Duration) (*VIPClaim, time.Duration, error) {
	def := &t.index.vips.def
	claim := VIPClaim{Service: name, VIP6: VIP6(def, name)}
	var err error
	var again time.Duration
	if def.Subnet4.IsValid() {
		free := t.AddressFree(name)
		claim.VIP4, err = Allocate(def, name, func(a netip.Addr) bool {
			at, quarantined := c.freed[a]
			return free(a) && (!quarantined || at+c.Quarant <= now)
		})
		if errors.Is(err, ErrExhausted) { // better an address that was in use lately than none
			claim.VIP4, err = Allocate(def, name, free)
		}
		if err != nil {
			again = now + 5*time.Second
		}
	}
	if !claim.VIP4.IsValid() && !claim.VIP6.IsValid() {
		return nil, again, err
	}
	claim.Birth = clock.Tick()
	return &claim, again, err
}

func (c *Carrier) free(t *Table, name string, now time.Duration) {
	if own := ownClaim(t, name); own != nil && own.VIP4.IsValid() {
		c.freed[own.VIP4] = now
	}
}

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

func sortedKeys[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
