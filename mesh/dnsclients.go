package mesh

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"meshd/resolver"
	"meshd/state"
)

const (
	// subnetsEvery is how often the host's subnets are read again: for so long a
	// container on a new bridge may be a stranger.
	subnetsEvery = 2 * time.Second
	// strangerNotice is how long status tells of a client that was refused.
	strangerNotice = 10 * time.Minute
)

// hostAddresses are the host's addresses, and their subnets: who is in one of
// them is asked by no router. A subnet that is most of all addresses is no
// neighbourhood, and left out.
func hostAddresses() (subnets []netip.Prefix, own []netip.Addr, err error) {
	addrs, err := net.InterfaceAddrs()
	subnets = []netip.Prefix{}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		own = append(own, p.Addr())
		if p.Bits() >= 8 {
			subnets = append(subnets, p.Masked())
		}
	}
	slices.SortFunc(subnets, netip.Prefix.Compare)
	return slices.Compact(subnets), own, err
}

// dnsClients is whom DNS serves besides the host's tasks (R8): those that a
// person named, else the connected subnets; and the host itself.
func (n *Node) dnsClients() (clients []netip.Prefix, own []netip.Addr) {
	clients, own, err := hostAddresses()
	trouble := ""
	if err != nil {
		trouble = fmt.Sprintf("dns: the host's addresses cannot be read (%v): its own programs are answered at 127.0.0.1 only", err)
		if n.current().ClientRanges == nil {
			trouble = fmt.Sprintf("dns: the host's subnets cannot be read (%v): only the host itself and its tasks are "+
				"answered; name others with --dns-clients", err)
		}
	}
	n.notices.Set("dns-clients", trouble)
	if n.current().ClientRanges != nil {
		clients = n.current().ClientRanges
	}
	return clients, own
}

// watchSubnets keeps the clients in step with the host's addresses.
func (n *Node) watchSubnets(ctx context.Context) error {
	if len(n.cfg.DNSAddrs) == 0 {
		return nil
	}
	tick := time.NewTicker(subnetsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.dns.SetClients(n.dnsClients())
		}
	}
}

// localTask reports whether a task that is registered here has the address.
func (n *Node) localTask(a netip.Addr) bool {
	source := n.host.Source()
	names, _ := source.Networks()
	for _, name := range names {
		if v := source.View(name); v != nil {
			if e := v.ByIP(a).Endpoint; e != nil && e.Owner() == state.NodeID(n.cfg.Node) {
				return true
			}
		}
	}
	return false
}

// strangerWarning tells of a client that was refused lately.
func strangerWarning(s *resolver.Server) []string {
	last, ok := s.LastStranger()
	if !ok || time.Since(last.At) > strangerNotice {
		return nil
	}
	return []string{fmt.Sprintf("dns: %d questions and connections of clients that are not served were refused so far, "+
		"the last from %s; if it should be served, name its subnet with --dns-clients", last.Refused, last.Addr)}
}
