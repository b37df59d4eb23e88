package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"meshd/lb"
	"meshd/state"
)

// world is one kernel, real or not, with hosts, containers and backends.
type world interface {
	// name is the driver's.
	name() string
	// newDriver returns a driver as a new process has it: not set up.
	newDriver(t *testing.T, log *logBook) lb.Driver
	// places are where clients can be.
	places() []place
	// kindOfHost is the name of the host's kind; empty: it was prepared for the tests.
	kindOfHost() string
	// families are those that the host has: whether they are IPv6.
	families() []bool
	// look does to the host what a daemon does there that looks at it.
	look(t *testing.T)
	// reloaded saves the host's ruleset and loads it again, if it is such a host.
	reloaded(t *testing.T) bool
	// node is the address of the host that balances: source of its clients. It
	// answers on portOfHost.
	node(six bool) netip.Addr
	// backend is the address of one of the four servers. They answer on ports
	// 80 and 443, TCP and UDP.
	backend(i int, six bool) netip.Addr
	// dial opens a connection, or a UDP socket.
	dial(from client, proto state.Proto, to netip.AddrPort) (conn, error)
	// ping sends an echo request and waits for its answer.
	ping(from place, to netip.Addr) error
	// seenAs is the source address that a backend sees of connections through
	// a VIP.
	seenAs(backend int, six bool) netip.Addr
	// idle makes the kernel forget the connections to a VIP as it does with
	// those that are idle for too long, and returns when it has: it shortens
	// the kernel's timeouts, has one last request made, and waits.
	idle(t *testing.T, vip netip.Addr, last func())
	// vandals are the ways to break what a driver has programmed by hand.
	vandals() []vandal
	// foreigners plants what belongs to others; the result checks that it is
	// still there.
	foreigners(t *testing.T) (intact func() error)
	// marker makes rules that mark all packets, as of another program. The result
	// checks that these marks stay, and that there are no others.
	marker(t *testing.T) (intact func() error)
	// marksRequests has somebody else mark what clients send to VIPs, by protocol, give
	// UDP a priority if asked to, and mark what backends answer; the result checks that
	// packets are so on their way out.
	marksRequests(t *testing.T, priority bool) (intact func() error)
	// barsMark has somebody else route UDP of that mark to no backend, until end.
	barsMark(t *testing.T) (end func())
	// calm returns a check that since its own call no TCP segment was sent twice
	// from that place, and that IPVS has not complained in the kernel's log.
	calm(t *testing.T, from place) (check func() error)
	// leftovers lists what is in the kernel of ours.
	leftovers(t *testing.T) []string
}

// place is where a client is.
type place string

const (
	remote    place = "a remote client"
	ownHost   place = "the host itself"
	container place = "a container"
	hairpin   place = "a backend that asks its own VIP" // backend 0
)

var everywhere = []place{remote, ownHost, container, hairpin}

// client is a place with a socket's own address.
type client struct {
	place
	address int    // which of the client's addresses, from 1; 0: any
	port    uint16 // source port; 0: any
}

// portOfHost is where the host that balances answers itself.
const portOfHost = 8080

// addressesOfClient is how many addresses the container has beside its own.
const addressesOfClient = 40

// conn is a client's connection, or its UDP socket.
type conn interface {
	// ask sends a request and waits for the answer.
	ask() (answer, error)
	// askFor is ask that waits for no longer than d.
	askFor(d time.Duration) (answer, error)
	// askAtLength is ask with a request of so many bytes.
	askAtLength(n int) (answer, error)
	// askForStray is ask; the server sends a segment far beyond the client's window
	// before it answers.
	askForStray() (answer, error)
	close()
}

// answer says who answered and what source address it saw.
type answer struct {
	backend netip.AddrPort
	seen    netip.Addr
}

// vandal is a person who changes by hand what is ours.
type vandal struct {
	name string
	// do breaks something that the service needs.
	do func(t *testing.T, s *lb.Service)
	// balance is set if traffic goes on, but wrongly balanced.
	balance bool
}
