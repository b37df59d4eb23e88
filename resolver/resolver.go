// Package resolver answers DNS questions from the views of package state, and
// forwards the rest (rules R1–R8 of docs/DESIGN.md).
//
// A question goes through three layers. zone.find is the rules of naming: a name
// and a scope in, a verdict out. zone.answer makes the records of what was found.
// Server is the sockets around that: framing, EDNS, limits, holding, forwarding.
// The fast path is a second way through the last two for what is asked often: it
// has the same verdict and copies records that zone.answer made before (R6).
//
// # Scope (R1)
//
// A question is answered in the scope of its client, and nothing outside the
// scope exists for it:
//
//   - A listener bound to networks: those networks, in the given order.
//   - A shared listener and a client whose address is a task's: the networks in
//     which it is, sorted by name. An address that two networks use for
//     different tasks gets both: give such networks a listener each.
//   - A shared listener and any other client that is served (an operator on the
//     host; see Config.Clients): host scope. Only qualified names resolve, on every network of this node.
//
// # Names (R2)
//
// In a network: <service>, tasks.<service>, nearest.<service>, the same with an
// alias, <service>.<slot>.<task id>, container and host names, task ids (full
// or 12 characters), and _port._proto.<service> for SRV, where port is a port's
// name or number. Each also as <name>.<network> and <name>.<network>.<domain>.
// A name without its network is looked up in each network of the scope in
// order; the first network that knows the name answers, even if it has nothing
// to serve at the moment, so that an outage never turns a name into another
// network's service.
package resolver

// This file owns the configuration of a server: fields, defaults and checks.

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meshd/state"
)

// DefaultDomain is the domain under which every network has its zone.
const DefaultDomain = "mesh.internal."

// ErrConfig is wrapped by the errors of New and Listen about bad input.
var ErrConfig = errors.New("invalid resolver configuration")

// Config configures a Server. The zero value of every field but Source is a
// usable default. New copies it. Functions are called from many goroutines.
type Config struct {
	// What is answered, and where that is logged.

	Source state.Source // what to answer from; required
	Log    *slog.Logger // nil: no log
	Domain string       // under which each network has its zone; "": DefaultDomain

	TTL         time.Duration // of positive answers, whole seconds; 0: 5 s; at most 1 h
	NegativeTTL time.Duration // SOA MINIMUM and TTL of negative answers (RFC 2308); 0: 2 s; 1 s to 5 s
	QueryLog    int           // log one of so many questions, at level info; 0: none

	// What the node knows besides the views.

	// VIPsUsable reports whether this node's load balancer serves the VIPs of a
	// network; while it does not, vip services are answered with their tasks
	// (R5). It is called for each question or a few that came together, and must
	// be fast. nil: always.
	VIPsUsable func(network string) bool
	// WhyNoVIPs says for people why VIPsUsable is false for a network; "": there
	// is no more to say than that nothing balances. Only Explain calls it. nil: "".
	WhyNoVIPs func(network string) string
	// RTT estimates the round-trip time to a node, for nearest.<service>. Nodes
	// for which ok is false come last. nil: all of them.
	RTT func(state.NodeID) (rtt time.Duration, ok bool)
	// Notes returns facts about a service that its view leaves out, such as
	// "1 task hidden because node c is dead". Only Explain calls it. nil: none.
	Notes func(network, service string) []string

	// Clients that listeners on addresses of the host serve (R8). Sockets that
	// are given to Listen serve every client.

	// Clients are the subnets that are served besides the host itself and its
	// tasks; others are refused. nil: all clients are served. SetClients changes it.
	Clients []netip.Prefix
	// HostAddrs are the host's own addresses beside loopback. SetClients changes it.
	HostAddrs []netip.Addr
	// LocalTask reports whether a task of this host has the address. It is called
	// for each question of a client that is not in Clients, and must be fast.
	// nil: none has.
	LocalTask func(netip.Addr) bool
	// ClientRate is how many questions per second over UDP a client may ask, with
	// a burst of twice that. A client is an IPv4 address or an IPv6 /64, which may
	// be a subnet and has four times each limit per client. Over it, every second
	// question is answered with TC, so that it comes over TCP, and the others are
	// dropped. The host
	// itself has no limit. 0: 2000; negative: none.
	ClientRate int

	// Names that are forwarded although they look like names of the mesh (R3).

	// SharedSuffixes are networks whose name is also a public top-level domain:
	// unknown names <name>.<network> are forwarded, not denied.
	SharedSuffixes []string
	// ForwardBare also forwards single-label names that no network knows.
	ForwardBare bool
	// Forward says where to.
	Forward ForwardConfig

	// Waiting for the first sync (R4).

	HoldTime   time.Duration // how long an unknown local name waits; 0: 1.5 s; negative: not at all
	HoldMax    int           // how many questions may wait at once; 0: 256
	HoldClient int           // how many of one client, 0: 16; of the host itself at least half of HoldMax

	// Bounds.

	MaxInFlight   int  // handlers at once; more are dropped; 0: 8192
	MaxTCP        int  // TCP connections at once; 0: 1024
	MaxTCPClient  int  // TCP connections at once per client, as in ClientRate; 0: 64
	MaxUDPPayload int  // largest UDP answer, in bytes; 0: 1232 (DNS flag day 2020); 512 to 4096
	FastBytes     int  // of packed answers, of all listeners together (R6.6); each may have 1 MiB; 0: 256 MiB
	DisableFast   bool // serve everything by the ordinary path (R6)
}

// withDefaults returns c with defaults filled in, or what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	if c.Source == nil {
		return c, fmt.Errorf("%w: Source: nil; pass the node's state", ErrConfig)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Domain = strings.ToLower(dns.Fqdn(cmp.Or(c.Domain, DefaultDomain)))
	if _, ok := dns.IsDomainName(c.Domain); !ok || c.Domain == "." || strings.ContainsRune(c.Domain, '\\') {
		return c, fmt.Errorf("%w: Domain: %q is not a domain name; use one like %q", ErrConfig, c.Domain, DefaultDomain)
	}
	c.TTL, c.NegativeTTL = cmp.Or(c.TTL, 5*time.Second), cmp.Or(c.NegativeTTL, 2*time.Second)
	if c.TTL < 0 || c.TTL > time.Hour {
		return c, fmt.Errorf("%w: TTL: %s; use 0 to 1h", ErrConfig, c.TTL)
	}
	if c.NegativeTTL < time.Second || c.NegativeTTL > 5*time.Second {
		return c, fmt.Errorf("%w: NegativeTTL: %s; use 1s to 5s", ErrConfig, c.NegativeTTL)
	}
	c.HoldTime, c.HoldMax = cmp.Or(c.HoldTime, 1500*time.Millisecond), cmp.Or(c.HoldMax, 256)
	c.HoldClient, c.ClientRate = cmp.Or(c.HoldClient, 16), cmp.Or(c.ClientRate, 2000)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 8192)
	c.MaxTCP, c.MaxTCPClient = cmp.Or(c.MaxTCP, 1024), cmp.Or(c.MaxTCPClient, 64)
	c.FastBytes = cmp.Or(c.FastBytes, 256<<20)
	c.MaxUDPPayload = cmp.Or(c.MaxUDPPayload, 1232)
	if c.MaxUDPPayload < dns.MinMsgSize || c.MaxUDPPayload > 4096 {
		return c, fmt.Errorf("%w: MaxUDPPayload: %d; use 512 to 4096", ErrConfig, c.MaxUDPPayload)
	}
	if c.QueryLog < 0 {
		return c, fmt.Errorf("%w: QueryLog: %d; use 0 for none, 1 for every question, N for one of N", ErrConfig, c.QueryLog)
	}
	var err error
	c.Forward, err = c.Forward.withDefaults()
	return c, err
}
