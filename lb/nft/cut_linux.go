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
// conntrack's table at most. Of a service for all ports those stay that a service
// with their port holds; nil: none does.
func (h *Helpers) Cut(gone []Connections, held func(lb.Key, netip.AddrPort) bool) error {
	var f flows
	for _, c := range gone {
		f.add(c.Service, c.Backend)
	}
	if held == nil {
		return f.delete(h.sock.queries, nil)
	}
	return f.delete(h.sock.queries, func(k flowKey) bool { return held(k.service(), k.backend) })
}
