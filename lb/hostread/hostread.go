// Package hostread reads the facts that lb/hostcheck judges, in the network
// namespace of the process: rules of packet filters, devices, ports of bridges,
// sysctls. It changes nothing.
package hostread

import (
	"net/netip"

	"meshd/lb/hostcheck"
)

// Want says what is to be read of what may be much.
type Want struct {
	Tasks        []netip.Addr // of which neighbours and ports of bridges are looked up
	Schedulers   []string     // of IPVS
	Destinations []netip.Addr // whose devices are asked for
}

// Reader reads a host. Its methods are for one goroutine.
type Reader interface {
	// Read returns the facts. What cannot be read is named in them. Filters are
	// only read again if somebody has written to them since.
	Read(want Want) *hostcheck.Facts
	// Moved reports whether somebody has written to filters since they were read,
	// or the kernel told of a change to devices or addresses. It is cheap.
	Changed() bool
	// Close releases the sockets.
	Close() error
}
