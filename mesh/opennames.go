package mesh

import (
	"fmt"
	"net/netip"
	"time"

	"meshd/gossip"
	"meshd/mesh/internal/names"
	"meshd/resolver"
	"meshd/state"
)

// openDNS makes the name server.
func (n *Node) openDNS() (err error) {
	n.dns, err = names.Open(names.Config{
		Self: state.NodeID(n.cfg.Node), Domain: n.cfg.Domain, TTL: time.Duration(n.cfg.TTL), QueryLog: n.cfg.QueryLog,
		Addrs:   n.cfg.DNSAddrs,
		Forward: resolver.ForwardConfig{Upstreams: n.cfg.Servers, Domains: n.cfg.DomainServers},
		Clients: func() []netip.Prefix { return n.current().ClientRanges }, Source: n.host.Source(),
		VIPsUsable: n.balancing.Working, WhyNoVIPs: n.balancing.WhyNoVIPs, RTT: n.host.RTT, Notes: n.Notes, View: n.reg.View,
		Condition: func(key, text string) { n.notices.Set(key, text) }, Log: n.log,
	})
	n.resolution = n.dns
	return err
}

// listenDNS opens the addresses of the host, once what the node states is stated.
func (n *Node) listenDNS() error {
	if err := n.dns.ListenOnHost(); err != nil {
		return fmt.Errorf("dns: %w; %s", err, gossip.ListenHint(err,
			"another name server, such as systemd-resolved, dnsmasq or a meshd,"))
	}
	return nil
}
