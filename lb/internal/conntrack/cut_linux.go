package conntrack

import (
	"net/netip"

	"meshd/lb"
)

// Cut makes conntrack forget connections: their next packet is balanced anew,
// refused, or reset. It costs a few passes over
// conntrack's table at most. Of a service for all ports those stay that a service
// with their port holds; nil: none does.
func Cut(c Table, gone []Connections, held func(lb.Key, netip.AddrPort) bool) error {
	var f Set
	for _, g := range gone {
		f.Add(g.Service, g.Backend)
	}
	if held == nil {
		return f.Delete(c, nil)
	}
	return f.Delete(c, func(k Key) bool { return held(k.Service(), k.Backend) })
}
