package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/lb"
	"meshd/lb/hostfacts"
	"meshd/lb/hostwatch"
	"meshd/mesh/control"
	"meshd/resolver"
)

// watchHost opens a watcher of a network namespace, or of the host's for "".
// Where it cannot be asked, no pool is served there, and status says why.
func (n *Node) watchHost(netns string, log *slog.Logger) *hostwatch.Watcher {
	w := hostwatch.New(func() (hostwatch.Kernel, error) { return hostwatch.Open(netns, n.cfg.PoolRanges) }, log)
	w.Require(n.cfg.PoolRanges, nil)
	return w
}

// needsEvery is the time between looks at what the host talks to.
const needsEvery = time.Second

// watchNeeds keeps the host's watcher informed of what must stay reachable.
func (n *Node) watchNeeds(ctx context.Context) error {
	tick := time.NewTicker(needsEvery)
	defer tick.Stop()
	for {
		if points, err := n.needs(ctx); err == nil {
			n.watch.Require(n.cfg.PoolRanges, points)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// needs returns what this host talks to: peers, name servers, sandboxes. (Of
// gateways the kernel tells, and of tasks the views.) Peers that are away count,
// since they come back.
func (n *Node) needs(ctx context.Context) ([]hostfacts.Point, error) {
	ctx, cancel := context.WithTimeout(ctx, needsEvery)
	defer cancel()
	var members []gossip.MemberInfo
	if err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { members = c.Members() }); err != nil {
		return nil, err
	}
	points := n.standingNeeds()
	alone := true
	for _, m := range members {
		if m.State != control.NodeLeft {
			points.add(m.Addr.Addr(), "node "+string(m.ID))
		}
		alone = alone && (m.State != control.NodeAlive || string(m.ID) == n.cfg.Node)
	}
	if alone {
		n.addPeers(&points)
	}
	return points, nil
}

// points are addresses that must stay reachable.
type points []hostfacts.Point

func (p *points) add(a netip.Addr, what string) {
	if a = a.Unmap(); a.IsValid() && !a.IsLoopback() {
		*p = append(*p, hostfacts.Point{Addr: a, What: what})
	}
}

// standingNeeds returns those of needs that do not come from the mesh.
func (n *Node) standingNeeds() points {
	var p points
	p.add(n.host.Addr().Addr(), "node "+n.cfg.Node)
	for _, text := range n.current().Join {
		if at, err := netip.ParseAddrPort(text); err == nil {
			p.add(at.Addr(), "node to join")
		}
	}
	for name, all := range n.seeds.Addrs() {
		for _, a := range all {
			p.add(a, "node to join, "+name)
		}
	}
	for _, u := range n.dns.Upstreams() {
		p.add(u.Addr.Addr(), "name server")
	}
	servers, _ := resolver.ReadServers("/etc/resolv.conf") // none: nothing to keep reachable
	for _, s := range servers {
		p.add(s.Addr(), "name server")
	}
	for _, b := range n.boxes.List() {
		for _, a := range b.Addresses() {
			p.add(a, "sandbox "+b.Name())
		}
	}
	return p
}

// addPeers adds the peers of former lives, for a node that nobody has answered:
// a pool over the only one that it can join would keep it alone for ever. Of a
// mesh that answers the members count, and not what a file remembers.
func (n *Node) addPeers(p *points) {
	for _, peer := range n.host.Peers() {
		p.add(peer.Addr.Addr(), "node "+string(peer.Name))
	}
}

// needsFirst are the needs of a node that has not heard from anybody: pools
// that it served before are programmed at once.
func (n *Node) needsFirst() points {
	p := n.standingNeeds()
	n.addPeers(&p)
	return p
}

// whyNoVIPs says what keeps the host's balancer from serving a network, or "".
func (n *Node) whyNoVIPs(network string) string {
	return lb.FormatConflicts(n.balancer.Refused()[network])
}

// refusals says, per network, what keeps a balancer from serving it. where goes
// before each text.
func refusals(b *lb.Balancer, where string) []string {
	var all []string
	refused := b.Refused()
	for _, network := range slices.Sorted(maps.Keys(refused)) {
		all = append(all, fmt.Sprintf("%snetwork %s is not served: %s; vip services are answered with their tasks", where,
			network, lb.FormatConflicts(refused[network])))
	}
	return all
}

// standsAgainst reports whether something that is known, and so does not go by
// waiting, keeps a balancer from serving a network.
func standsAgainst(b *lb.Balancer, network string) bool {
	against := b.Refused()[network]
	return len(against) > 0 && !slices.ContainsFunc(against,
		func(c hostfacts.Conflict) bool { return c.Kind == hostfacts.KindUnknown })
}

// refusedEvent tells watchers that a network is not served here, or is again.
func refusedEvent(sandbox, network string, against []hostfacts.Conflict) control.Event {
	e := control.Event{Type: control.EventPoolRefused, Network: network, Detail: lb.FormatConflicts(against)}
	if len(against) == 0 {
		e.Type, e.Detail = control.EventPoolServed, "nothing stands against its pools any more"
	}
	if sandbox != "" {
		e.Detail = "sandbox " + sandbox + ": " + e.Detail
	}
	return e
}

// balancing is the host's load balancing as the registry sees it.
type balancing struct{ n *Node }

func (d balancing) VIPsUsable() bool                { return d.n.vipsUsable() }
func (d balancing) Why() string                     { return d.n.lbWhy() }
func (d balancing) WhyNoVIPs(network string) string { return d.n.whyNoVIPs(network) }

// AgainstPools says what on this host stands against some pools.
func (d balancing) AgainstPools(pools []netip.Prefix) string {
	facts, _ := d.n.watch.Facts()
	var all []hostfacts.Conflict
	for _, p := range pools {
		if p.IsValid() && p == p.Masked() {
			all = append(all, hostfacts.Conflicts(p, facts)...)
		}
	}
	return lb.FormatConflicts(all)
}
