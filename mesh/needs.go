package mesh

import (
	"context"
	"net/netip"
	"time"

	"meshd/gossip"
	"meshd/lb/hostfacts"
	"meshd/mesh/control"
	"meshd/resolver"
)

// needsEvery is the time between looks at what the host talks to.
const needsEvery = time.Second

// reachable says what must stay reachable for a node: no VIP pool over it is served (L9).
type reachable struct{ n *Node }

// watch keeps load balancing informed of it until ctx ends.
func (r *reachable) watch(ctx context.Context) error {
	tick := time.NewTicker(needsEvery)
	defer tick.Stop()
	for {
		if points, err := r.all(ctx); err == nil {
			r.n.balancing.Require(points)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// all returns what this host talks to: peers, name servers, sandboxes. (Of
// gateways the kernel tells, and of tasks the views.) Peers that are away count,
// since they come back.
func (r *reachable) all(ctx context.Context) ([]hostfacts.Point, error) {
	ctx, cancel := context.WithTimeout(ctx, needsEvery)
	defer cancel()
	var members []gossip.MemberInfo
	if err := r.n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { members = c.Members() }); err != nil {
		return nil, err
	}
	points := r.fixed()
	alone := true
	for _, m := range members {
		if m.State != control.NodeLeft {
			points.add(m.Addr.Addr(), "node "+string(m.ID))
		}
		alone = alone && (m.State != control.NodeAlive || string(m.ID) == r.n.cfg.Node)
	}
	if alone {
		r.addPeers(&points)
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

// fixed returns those that do not come from the mesh.
func (r *reachable) fixed() points {
	var p points
	p.add(r.n.host.Addr().Addr(), "node "+r.n.cfg.Node)
	for _, text := range r.n.current().Join {
		if at, err := netip.ParseAddrPort(text); err == nil {
			p.add(at.Addr(), "node to join")
		}
	}
	for name, all := range r.n.seeds.Addrs() {
		for _, a := range all {
			p.add(a, "node to join, "+name)
		}
	}
	for _, u := range r.n.dns.Upstreams() {
		p.add(u.Addr.Addr(), "name server")
	}
	servers, _ := resolver.ReadServers("/etc/resolv.conf") // none: nothing to keep reachable
	for _, s := range servers {
		p.add(s.Addr(), "name server")
	}
	for _, b := range r.n.boxes.List() {
		for _, a := range b.Addresses() {
			p.add(a, "sandbox "+b.Name())
		}
	}
	return p
}

// addPeers adds the peers of former lives, for a node that nobody has answered:
// a pool over the only one that it can join would keep it alone for ever. Of a
// mesh that answers the members count, and not what a file remembers.
func (r *reachable) addPeers(p *points) {
	for _, peer := range r.n.host.Peers() {
		p.add(peer.Addr.Addr(), "node "+string(peer.Name))
	}
}

// first returns them for a node that has not heard from any other: pools that it served
// before are programmed at once.
func (r *reachable) first() points {
	p := r.fixed()
	r.addPeers(&p)
	return p
}
