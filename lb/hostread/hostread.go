// Package hostread reads the facts that lb/hostcheck checks (rule L13 of
// docs/DESIGN.md), in the network namespace of the process: rules of packet filters,
// devices, ports of bridges, sysctls. It changes nothing.
//
// Everything that is read is bounded in number and time, since others fill these
// tables. Rules are turned into conditions on a few fields. What is not understood
// becomes a condition that a packet may or may not meet.
package hostread

import (
	"net/netip"

	"meshd/lb/hostcheck"
)

// Want limits what is read of large tables.
type Want struct {
	Tasks        []netip.Addr // whose neighbour entries and ports of bridges are read
	Schedulers   []string     // of IPVS, that are looked for in the kernel and on disk
	Destinations []netip.Addr // to which the devices are asked for
}

// Reader reads a host. It is for one goroutine.
type Reader interface {
	// Read returns the facts. Parts that cannot be read are named in them. Filters are
	// read again only if somebody has written to them since.
	Read(want Want) *hostcheck.Facts
	// Changed reports whether somebody has written to the filters since they were
	// read, or the kernel announced a change of devices or addresses. It is cheap.
	Changed() bool
	// Close releases the sockets.
	Close() error
}
