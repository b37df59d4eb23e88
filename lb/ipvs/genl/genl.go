// Package genl speaks the generic netlink protocol of IPVS: what moby/ipvs
// lacks or does one message at a time.
//
// Conn.Do carries out many requests with few system calls: the messages of up
// to 512 requests travel in one write, only the last of them asks for an
// acknowledgement, and the kernel answers those that fail by their sequence
// numbers. There are no transactions: a request that fails does not keep the
// next ones from being carried out.
//
// Services, Service and Destinations read settings and 64-bit counters, Info the
// kernel's version of IPVS. Addresses of destinations carry their own family,
// weights have 32 bits, and every wait has an end. There is no message for the
// destinations of all services; /proc/net/ip_vs tells them at a third of the
// cost, in namespaces where it tells all.
//
// The package knows nothing of lb. Messages are encoded and decoded on every
// system, a Conn needs Linux.
package genl

import (
	"errors"
	"net/netip"
)

// Command is what a request asks for (IPVS_CMD_* of linux/ip_vs.h).
type Command uint8

// The commands that Conn.Do takes.
const (
	NewService     Command = 1 // all of Service; EEXIST if it is there, ENOENT without the scheduler
	SetService     Command = 2 // all of Service; ESRCH if it is missing
	DelService     Command = 3 // with its destinations; ESRCH if it is missing
	NewDestination Command = 5 // EEXIST if it is there, ESRCH without the service
	SetDestination Command = 6 // ENOENT if it is missing, ESRCH without the service
	DelDestination Command = 7 // as SetDestination; only the address matters
)

const (
	getService     Command = 4
	getDestination Command = 8
	getInfo        Command = 15
)

// Family is an address family: that of a firewall mark's packets, too.
type Family uint16

// The families, by their numbers on Linux.
const (
	IPv4 Family = 2
	IPv6 Family = 10
)

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// ID names a virtual service: by address, port and protocol, or, with Mark not
// 0, by firewall mark. The same mark may have one service in each family.
type ID struct {
	Family Family
	Proto  uint8 // 6 TCP, 17 UDP, 132 SCTP; 0 with a mark
	Port   uint16
	Mark   uint32
	Addr   netip.Addr // the zero Addr with a mark
}

// ByMark returns the ID of a mark without what the kernel ignores beside it,
// so that IDs can be compared.
func ByMark(f Family, mark uint32) ID { return ID{Family: f, Mark: mark} }

// Service is a virtual service with its settings.
type Service struct {
	ID

	Scheduler string // as "wrr"; at most 15 bytes
	Flags     uint32 // IP_VS_SVC_F_*
	Timeout   uint32 // of persistence, in seconds
	Netmask   uint32 // of persistence: IPv4 a mask, IPv6 a prefix length; 128 for every IPv6 service without
	Stats     Stats  // not written
}

// Stats are counters since the service was made.
type Stats struct{ Connections, PacketsIn, PacketsOut, BytesIn, BytesOut uint64 }

// Forward is how packets reach a destination.
type Forward uint32

// Masquerade rewrites the destination's address. It is the only method that
// changes ports.
const Masquerade Forward = 0

// LocalNode is what a kernel may make of Masquerade if the address is its own.
const LocalNode Forward = 1

const forwardMask = 7 // the other bits are flags of connections

// Destination is a real server of a service.
type Destination struct {
	Addr    netip.AddrPort
	Weight  uint32 // below 1<<31; 0: no new connections
	Forward Forward
}

// DestinationState is a destination as the kernel tells of it.
type DestinationState struct {
	Destination

	Active, Inactive uint32 // connections: established, and in every other state
	Stats            Stats
}

// Request is one command for Conn.Do.
type Request struct {
	Command     Command
	Service     Service     // of service commands all of it, else its ID
	Destination Destination // of destination commands
}

// Info is what the kernel says of its IPVS.
type Info struct {
	Version   uint32 // as 0x10201
	TableSize uint32 // of the connection table
}

// Errors beside errnos, which the kernel's own refusals are.
var (
	// ErrNoIPVS says that the kernel has no IPVS and no module of it.
	ErrNoIPVS = errors.New("the kernel has no IPVS")
	// ErrLost says that no answer arrived: whether the request was carried out is
	// unknown. All requests of this package may be sent again.
	ErrLost = errors.New("the kernel's answer was lost")
	// ErrInterrupted says that the table changed while it was read, several times.
	ErrInterrupted = errors.New("the table changed while it was read")
	// ErrMalformed says that the kernel's answer cannot be understood.
	ErrMalformed = errors.New("malformed netlink message")
)
