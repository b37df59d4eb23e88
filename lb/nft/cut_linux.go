package nft

import (
	"net/netip"

	"meshd/lb"
)

// Connections are those of one backend of a service.
type Connections struct {
	Service lb.Key
	Backend netip.AddrPort // port 0: of a service for all ports
}

// Cut makes conntrack forget connections: their next packet is balanced anew,
// refused, or reset. It costs a few passes over
// conntrack's table at most.
func (h *Helpers) Cut(gone []Connections) error {
	var f flows
	for _, c := range gone {
		f.add(c.Service, c.Backend)
	}
	return f.delete(h.sock.queries)
}
