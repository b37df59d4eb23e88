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

// connectedSubnets are the subnets of the host's addresses: who is in one of
// them is asked by no router. A subnet that is most of all addresses is no
// neighbourhood, and left out.
func connectedSubnets() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	subnets := []netip.Prefix{}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Bits() < 8 {
			continue
		}
		subnets = append(subnets, p.Masked())
	}
	slices.SortFunc(subnets, netip.Prefix.Compare)
	return slices.Compact(subnets), nil
}

// dnsClients is whom DNS serves besides the host itself and its tasks (R8): those
// that a person named, else the connected subnets.
func (n *Node) dnsClients() []netip.Prefix {
	if n.cfg.dnsClients != nil {
		return n.cfg.dnsClients
	}
	subnets, err := connectedSubnets()
	if err != nil {
		n.notices.set("dns-clients", fmt.Sprintf("dns: the host's subnets cannot be read (%v): only the host itself and its tasks are answered; name others with --dns-clients", err))
		return []netip.Prefix{}
	}
	n.notices.set("dns-clients", "")
	return subnets
}

// watchSubnets keeps the clients in step with the host's addresses.
func (n *Node) watchSubnets(ctx context.Context) error {
	if len(n.cfg.dns) == 0 || n.cfg.dnsClients != nil {
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
	return []string{fmt.Sprintf("dns: %d questions and connections of clients that are not served were refused so far, the last from %s; if it should be served, name its subnet with --dns-clients", s.Stats().Strangers, last.Addr)}
}
