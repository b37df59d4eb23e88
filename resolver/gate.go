package resolver

// This file owns which clients a listener serves and how often (R8), by the
// address of a packet alone.

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// gate decides, packet by packet, which clients a listener on an address of the
// host serves (R8): the server's clients and the host itself, each client as often as
// the limit allows. It belongs to the goroutine that reads the socket and takes
// no lock. What it turns away costs no parsing, no goroutine, and at most a reply
// of the question's size.
type gate struct {
	// All points in time are since server.started.
	server *Server
	now    time.Duration // the time of the batch; 0: not read yet

	// Clients that are served: each at the place of its hash.
	known [maxClients]knownClient

	// The limit per client. next is when each client's next question would be due
	// if it asked at the limit's rate. Clients with one hash share a place: that
	// needs no bound and no eviction, and since the hash is secret a client cannot
	// choose which others it shares with.
	next           []time.Duration // by the hash; nil: no limit
	every          time.Duration   // between two questions at the limit's rate
	factor, offset uint64          // of the hash

	// Clients that are refused.
	strangers  time.Duration // when the next one would be due, as in next
	remembered time.Duration // when one was last remembered in server.stranger
	counts     gateCounts    // of the batch
}

type knownClient struct {
	addr  netip.Addr
	list  *clientList   // with which it was looked up
	host  bool          // it is the host itself
	until time.Duration // it is a local task until then; 0: as long as the list is the same
}

const (
	gateBits   = 13
	gatePlaces = 1 << gateBits
	// taskMemory is how long a local task stays known after it was looked up.
	taskMemory = time.Second
	// strangerRate is how many strangers a second are looked up and refused;
	// more of them are dropped.
	strangerRate = 1000
)

// admission is what becomes of a packet.
type admission uint8

const (
	admitted admission = iota
	refused            // a client that is not served
	limited            // over the limit
	dropped            // without a reply
)

func newGate(s *Server) *gate {
	g := &gate{server: s, factor: rand.Uint64() | 1, offset: rand.Uint64()}
	if s.cfg.ClientRate > 0 {
		g.next, g.every = make([]time.Duration, gatePlaces), time.Second/time.Duration(s.cfg.ClientRate)
	}
	return g
}

// begin starts a batch of packets.
func (g *gate) begin() { g.now = 0 }

func (g *gate) clock() time.Duration {
	if g.now == 0 {
		g.now = time.Since(g.server.started)
	}
	return g.now
}

// admit decides about one packet by where it comes from. The host's own questions
// have no limit: a caching server there asks for all of its clients.
func (g *gate) admit(client netip.Addr) admission {
	if client.IsLoopback() {
		return admitted
	}
	list := g.server.clients.Load()
	served, host := list == nil, false
	if list != nil {
		served, host = g.serves(list, client)
	}
	if host {
		return admitted
	}
	if !served {
		var within bool
		if g.strangers, within = takeAt(g.strangers, g.clock(), time.Second/strangerRate, time.Second); !within {
			g.counts.refused++
			return dropped
		}
		if g.server.cfg.LocalTask == nil || !g.server.cfg.LocalTask(client) {
			g.rememberStranger(client)
			return refused
		}
		k := &g.known[clientSlot(client)]
		*k = knownClient{addr: client, list: list, until: g.clock() + taskMemory}
	}
	if g.next == nil || g.due(client) {
		return admitted
	}
	if g.counts.limited++; g.counts.limited%2 == 0 {
		return dropped
	}
	return limited
}

// serves reports whether the list has the client, or whether it is known to be
// a local task, and whether it is the host itself.
func (g *gate) serves(list *clientList, client netip.Addr) (served, host bool) {
	k := &g.known[clientSlot(client)]
	if k.addr == client && k.list == list && (k.until == 0 || k.until > g.clock()) {
		return true, k.host
	}
	host = list.isHost(client)
	if !host && !list.contains(client) {
		return false, false
	}
	*k = knownClient{addr: client, list: list, host: host}
	return true, host
}

// due takes one question of the client's rate.
func (g *gate) due(client netip.Addr) bool {
	place := &g.next[(clientWord(client)*g.factor+g.offset)>>(64-gateBits)]
	next, ok := takeAt(*place, g.clock(), g.every/time.Duration(shares(client)), 2*time.Second)
	*place = next
	return ok
}

// reply turns the packet in buf[:n], which was not admitted, into a reply of at
// most its size. It returns the reply's length, or 0 if there is none.
func (g *gate) reply(a admission, buf []byte, n int) int {
	const qr, opcode, tc, rd = 0x80, 0x78, 0x02, 0x01
	switch a {
	case refused:
		g.counts.refused++
	case dropped:
		g.counts.dropped++
		return 0
	}
	// Only a plain question gets a reply: two servers could go on replying to
	// each other for ever.
	if n < 17 || buf[2]&(qr|opcode) != 0 || binary.BigEndian.Uint16(buf[4:]) != 1 {
		return 0
	}
	end := nameEnd(buf[:n])
	if end == 0 || end+4 > n {
		return 0
	}
	buf[2], buf[3] = qr|buf[2]&rd, dns.RcodeRefused
	if a == limited {
		buf[2], buf[3] = buf[2]|tc, dns.RcodeSuccess // over TCP, where the address is proven, it gets its answer
	}
	clear(buf[6:12])
	return end + 4
}

// rememberStranger remembers, once a second, who was refused last.
func (g *gate) rememberStranger(client netip.Addr) {
	if g.remembered == 0 || g.clock()-g.remembered >= time.Second {
		g.remembered = g.clock()
		g.server.stranger.Store(&Stranger{Addr: client, At: time.Now()})
	}
}

// gateCounts counts what was turned away since the last flush.
type gateCounts struct {
	refused, limited, dropped uint64
	flushed                   uint64 // of limited, which goes on for its parity
}

// flush adds the counts to the metrics.
func (c *gateCounts) flush(m *metrics) {
	if c.refused == 0 && c.dropped == 0 && c.limited == c.flushed {
		return
	}
	m.countN(countStrangers, c.refused)
	m.countN(countLimited, c.limited-c.flushed)
	m.countN(countDropped, c.dropped)
	*c = gateCounts{limited: c.limited, flushed: c.limited}
}

// takeAt takes one from a rate with a burst, in virtual time: next is when the
// next one would be due at exactly one every so long.
func takeAt(next, now, every, burst time.Duration) (time.Duration, bool) {
	next = max(next, now)
	if next-now > burst-every {
		return next, false
	}
	return next + every, true
}

// clientKey is what limits count by: an IPv4 address, or the /64 of an IPv6
// one, all of whose addresses one host may use.
func clientKey(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return a
	}
	p, _ := a.Prefix(64)
	return p.Addr()
}

// shares is how many times a limit per client a client may use. A /64 may be one
// host's, which must not get all, or a subnet of containers, who need more than
// one client does.
func shares(client netip.Addr) int {
	if client.Is4() || client.Is4In6() || client.IsLoopback() || client.IsLinkLocalUnicast() {
		return 1
	}
	return 4
}

// clientWord is clientKey as a number.
func clientWord(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	if a.IsLinkLocalUnicast() {
		return binary.BigEndian.Uint64(b[8:])
	}
	return binary.BigEndian.Uint64(b[:])
}

// Stranger is a client that was refused (R8).
type Stranger struct {
	Addr    netip.Addr
	At      time.Time
	Refused uint64 // questions and connections of all such clients so far
}
