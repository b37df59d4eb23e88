package lbtest

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"syscall"
	"time"

	"meshd/lb"
	"meshd/state"
)

// This file is the traffic model: what becomes of connections in a kernel that
// holds the fake's table. Every backend listens on every port, and answers.

// Flow is one connection (TCP) or one client's socket (UDP) through a Fake. It
// is safe for concurrent use.
type Flow struct {
	fake      *Fake
	proto     state.Proto
	from      netip.AddrPort
	to        netip.AddrPort
	backend   netip.AddrPort // zero: not picked yet
	forgotten bool           // the kernel has no entry for it any more
}

// stickiness is what affinity remembers of one client.
type stickiness struct {
	backend netip.AddrPort
	until   time.Time
}

type clientOf struct {
	service lb.Key
	client  netip.Addr
}

// Dial opens a flow. Errors are as a socket's: ENETUNREACH outside of the
// pools, ECONNREFUSED where no service takes a TCP connection.
func (f *Fake) Dial(proto state.Proto, from, to netip.AddrPort) (*Flow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.inPool(to.Addr()) {
		return nil, syscall.ENETUNREACH
	}
	fl := &Flow{fake: f, proto: proto, from: from, to: to}
	if proto == state.TCP {
		b, ok := f.pickBackend(proto, from, to)
		if !ok {
			return nil, syscall.ECONNREFUSED
		}
		fl.backend = b
	}
	if f.flows == nil {
		f.flows = map[*Flow]struct{}{}
	}
	f.flows[fl] = struct{}{}
	return fl, nil
}

// Ask sends a request and returns which backend answers and which source
// address it saw. ECONNRESET means that the connection was cut, ECONNREFUSED
// that no service takes the datagram.
func (fl *Flow) Ask() (backend netip.AddrPort, seen netip.Addr, err error) {
	f := fl.fake
	f.mu.Lock()
	defer f.mu.Unlock()
	if !fl.backend.IsValid() || fl.forgotten || !f.servesFlow(fl.proto, fl.to, fl.backend) {
		b, ok := f.pickBackend(fl.proto, fl.from, fl.to)
		switch {
		case fl.proto == state.TCP && (!fl.forgotten || b != fl.backend):
			return netip.AddrPort{}, netip.Addr{}, syscall.ECONNRESET
		case !ok:
			return netip.AddrPort{}, netip.Addr{}, syscall.ECONNREFUSED
		}
		fl.backend, fl.forgotten = b, false
	}
	return fl.backend, f.sourceFor(fl.to.Addr()), nil
}

// Close ends the flow.
func (fl *Flow) Close() {
	fl.fake.mu.Lock()
	defer fl.fake.mu.Unlock()
	delete(fl.fake.flows, fl)
}

// Ping reports whether an address answers an echo request: one of a pool does.
func (f *Fake) Ping(a netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.inPool(a) {
		return syscall.ENETUNREACH
	}
	return nil
}

// ForgetFlows drops what the kernel remembers of flows, as it does with those
// that are idle for too long.
func (f *Fake) ForgetFlows() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for fl := range f.flows {
		fl.forgotten = true
	}
	clear(f.sticky)
}

// serviceAt returns the service that takes packets to an address, or nil.
func (f *Fake) serviceAt(proto state.Proto, to netip.AddrPort) *lb.Service {
	t := f.table()
	if s := t.Services[lb.Key{VIP: to.Addr(), Port: to.Port(), Proto: proto}]; s != nil {
		return s
	}
	return t.Services[lb.Key{VIP: to.Addr(), Proto: proto}]
}

// reachedAddr returns the address to which packets for to go at a backend.
func reachedAddr(b lb.Backend, to netip.AddrPort) netip.AddrPort {
	if b.Addr.Port() == 0 {
		return netip.AddrPortFrom(b.Addr.Addr(), to.Port())
	}
	return b.Addr
}

// servesFlow reports whether the backend still belongs to the service: at any
// weight, but for UDP, which does not drain (L5).
func (f *Fake) servesFlow(proto state.Proto, to, backend netip.AddrPort) bool {
	s := f.serviceAt(proto, to)
	if s == nil {
		return false
	}
	for _, b := range s.Backends {
		if reachedAddr(b, to) == backend {
			return b.Weight > 0 || proto != state.UDP
		}
	}
	return false
}

// sourceFor returns the address that the pool's masquerade gives to clients.
func (f *Fake) sourceFor(vip netip.Addr) netip.Addr {
	for prefix, p := range f.table().Pools {
		if prefix.Contains(vip) {
			return p.Src
		}
	}
	return netip.Addr{}
}

// pickBackend chooses the backend of a new flow.
func (f *Fake) pickBackend(proto state.Proto, from, to netip.AddrPort) (netip.AddrPort, bool) {
	s := f.serviceAt(proto, to)
	if s == nil {
		return netip.AddrPort{}, false
	}
	var live []lb.Backend
	for _, b := range s.Backends {
		if b.Weight > 0 {
			live = append(live, b)
		}
	}
	if len(live) == 0 {
		return netip.AddrPort{}, false
	}
	if s.Affinity > 0 {
		return reachedAddr(f.stickyBackend(s, from.Addr(), live), to), true
	}
	return reachedAddr(f.nextBackend(s, from.Addr(), live), to), true
}

// stickyBackend returns the backend that the client has by affinity. If it has none,
// or it takes no new flows any more, the client gets another one.
func (f *Fake) stickyBackend(s *lb.Service, client netip.Addr, live []lb.Backend) lb.Backend {
	now, id := time.Now(), clientOf{s.Key, client}
	if f.sticky == nil {
		f.sticky = map[clientOf]stickiness{}
	}
	until := now.Add(s.Affinity)
	for _, b := range live {
		if old := f.sticky[id]; old.backend == b.Addr && now.Before(old.until) {
			f.sticky[id] = stickiness{b.Addr, until}
			return b
		}
	}
	b := f.nextBackend(s, client, live)
	f.sticky[id] = stickiness{b.Addr, until}
	return b
}

// nextBackend returns the backend that the service's scheduler picks.
func (f *Fake) nextBackend(s *lb.Service, client netip.Addr, live []lb.Backend) lb.Backend {
	cost := func(b lb.Backend) float64 { // the cheapest is taken
		return float64(f.flowsGiven(s.Key, b)) / float64(b.Weight)
	}
	switch s.Scheduler {
	case "sh", "dh", "mh":
		cost = func(b lb.Backend) float64 { return -rendezvous(client, b) }
	case "lc", "wlc", "sed", "nq":
		cost = func(b lb.Backend) float64 { return float64(f.openFlows(s, b)+1) / float64(b.Weight) }
	case "rr":
		cost = func(b lb.Backend) float64 { return float64(f.flowsGiven(s.Key, b)) }
	}
	best := live[0]
	for _, b := range live[1:] {
		if cost(b) < cost(best) {
			best = b
		}
	}
	if f.turns == nil {
		f.turns = map[lb.Key]map[netip.AddrPort]int{}
	}
	if f.turns[s.Key] == nil {
		f.turns[s.Key] = map[netip.AddrPort]int{}
	}
	f.turns[s.Key][best.Addr]++
	return best
}

// flowsGiven returns how many flows a backend got so far.
func (f *Fake) flowsGiven(k lb.Key, b lb.Backend) int { return f.turns[k][b.Addr] }

// openFlows returns how many flows a backend has now.
func (f *Fake) openFlows(s *lb.Service, b lb.Backend) int {
	n := 0
	for fl := range f.flows {
		if f.serviceAt(fl.proto, fl.to) == s && reachedAddr(b, fl.to) == fl.backend && !fl.forgotten {
			n++
		}
	}
	return n
}

// rendezvous returns the weight of a backend for a client, in [0, 1).
func rendezvous(client netip.Addr, b lb.Backend) float64 {
	h := fnv.New64a()
	raw := client.As16()
	h.Write(raw[:])
	raw = b.Addr.Addr().As16()
	h.Write(raw[:])
	h.Write(binary.BigEndian.AppendUint16(nil, b.Addr.Port()))
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	return float64(x>>11) / (1 << 53)
}
