package mesh

import (
	"fmt"
	"time"

	"meshd/gossip"
	"meshd/resolver"
)

func (n *Node) openDNS() (err error) {
	clients, own := n.dnsClients()
	n.dns, err = resolver.New(resolver.Config{
		Source: n.host.Source(), Log: n.log, Domain: n.cfg.Domain, TTL: time.Duration(n.cfg.TTL), QueryLog: n.cfg.QueryLog,
		VIPsUsable: n.balancing.Working, WhyNoVIPs: n.balancing.WhyNoVIPs, RTT: n.host.RTT, Notes: n.Notes,
		Clients: clients, HostAddrs: own, LocalTask: n.localTask,
		Forward: resolver.ForwardConfig{Upstreams: n.cfg.Servers, Domains: n.cfg.DomainServers},
	})
	if err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	return nil
}

// listenDNS opens the addresses of the host. The node's own networks and tasks
// must be there by then: without them every client is a stranger, whose names
// do not exist.
func (n *Node) listenDNS() error {
	for _, a := range n.cfg.DNSAddrs {
		b, err := n.dns.Listen(resolver.Listener{Addr: a})
		if err != nil {
			return fmt.Errorf("dns: %w; %s", err, gossip.ListenHint(err,
				"another name server, such as systemd-resolved, dnsmasq or a meshd,"))
		}
		n.dnsAddrs = append(n.dnsAddrs, b.Addr())
	}
	return nil
}

// dnsTrouble says what keeps names of others from being resolved.
func (n *Node) dnsTrouble() (degraded []string) {
	if n.dns.Stats().Listeners == 0 {
		return nil
	}
	up := map[string]int{} // servers that can be asked, per domain
	for _, u := range n.dns.Upstreams() {
		up[u.Domain] += 0
		switch u.State {
		case resolver.UpstreamUp:
			up[u.Domain]++
		case resolver.UpstreamLooping:
			degraded = append(degraded, fmt.Sprintf("dns: upstream %s sends this node's questions back to it: not asked "+
				"until it stops", u.Addr))
		case resolver.UpstreamSelf:
			degraded = append(degraded, fmt.Sprintf("dns: upstream %s is this node itself: not asked; name other servers "+
				"with --upstream", u.Addr))
		case resolver.UpstreamDown:
			degraded = append(degraded, fmt.Sprintf("dns: upstream %s does not answer: asked last", u.Addr))
		}
	}
	if len(up) == 0 {
		degraded = append(degraded, "dns: no upstream is known, so names of others fail: name servers in /etc/resolv.conf "+
			"or with --upstream")
	}
	return degraded
}
