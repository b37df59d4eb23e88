// Package conntrack reads and deletes the connections of services in the kernel's
// table: where their client sent the first packet, and where the answers come from.
// The table holds all connections of the host, perhaps a million, so that passes over
// it are few, and nothing is kept of what is not asked for.
package conntrack

import (
	"net/netip"

	"meshd/lb"
)

// Connections are those of one backend of a service.
type Connections struct {
	Service lb.Key
	Backend netip.AddrPort // port 0: of a service for all ports
}
