package mesh

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/lb/hostcheck"
	"meshd/mesh/config"
	"meshd/mesh/control"
	"meshd/mesh/internal/lookout"
	"meshd/mesh/internal/notice"
	"meshd/mesh/internal/registry"
	"meshd/state"
)

// Bounds of what is asked about the host.
const (
	aloneFrom = 10 * time.Second // after the start: a mesh is joined by then
	maxWays   = 256              // subnets of backends, to which the ways are asked for
	samples   = 16               // of backends and peers, for what firewalls make of them
)

// hostView is the node on its host, as its lookout sees it. It belongs to the goroutine
// that looks.
type hostView struct {
	n          *Node
	registered *registry.Snapshot // at the latest Changed
	firewalls  notice.Board       // chains to which no rule can be added, and why
}

var _ lookout.Host = (*hostView)(nil)

// Changed implements lookout.Host.
func (h *hostView) Changed() bool {
	before := h.registered
	h.registered = h.n.reg.Snapshot()
	return h.registered != before
}

// Needs implements lookout.Host.
func (h *hostView) Needs(ctx context.Context) (*hostcheck.Needs, error) {
	n := h.n
	needs := hostNeeds(n.cfg)
	needs.Gossip = netip.AddrPortFrom(needs.Gossip.Addr(), n.host.Addr().Port())
	needs.DNS = n.dns.Addrs()
	needs.Driver = n.balancing.Driver()
	err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		for _, m := range c.Members() {
			if m.State == control.NodeAlive && len(needs.Peers) < samples {
				needs.Peers = append(needs.Peers, m.Addr.Addr())
			}
		}
	})
	names, _ := n.host.Source().Networks()
	for _, name := range names {
		if v := n.host.Source().View(name); v != nil {
			h.needsOf(v, needs)
		}
	}
	served := n.balancing.Pools() // what is refused, as one that has the host's addresses, is not to be let through
	needs.Pools = slices.DeleteFunc(needs.Pools, func(p netip.Prefix) bool { _, ok := served[p]; return !ok })
	return needs, err
}

// needsOf adds what one network asks of the host.
func (h *hostView) needsOf(v state.View, needs *hostcheck.Needs) {
	def := v.Def()
	pools, tasks := len(needs.Pools), len(needs.Tasks)
	for _, p := range []netip.Prefix{def.Subnet4, def.Subnet6} {
		if p.IsValid() {
			needs.Pools = append(needs.Pools, p)
		}
	}
	for _, s := range v.Services() {
		if name := s.Scheduler; name != "" && !slices.Contains(needs.Schedulers, name) {
			needs.Schedulers = append(needs.Schedulers, name)
		}
		for _, p := range s.Ports {
			if len(needs.Ports) < samples {
				needs.Ports = append(needs.Ports, p.Number)
			}
		}
		for _, m := range s.Members.All() {
			if len(needs.Targets) < samples {
				m.EachPort(func(p state.Port) { needs.Targets = append(needs.Targets, p.Listens()) })
			}
			to, most := &needs.Backends, maxWays
			if m.Owner() == state.NodeID(h.n.cfg.Node) {
				to, most = &needs.Tasks, hostcheck.MaxTasks
			}
			for _, a := range []netip.Addr{m.Addr4(), m.Addr6()} {
				if !a.IsValid() || a.IsLoopback() || len(*to) >= most || to == &needs.Backends && near(a, *to) {
					continue
				}
				*to = append(*to, a)
			}
		}
	}
	needs.Networks = append(needs.Networks, hostcheck.Network{
		Pools: slices.Clone(needs.Pools[pools:]),
		Tasks: slices.Clone(needs.Tasks[tasks:]),
	})
}

// near reports whether an address of the same subnet is there, as far as subnets of
// hosts go.
func near(a netip.Addr, all []netip.Addr) bool {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	p := netip.PrefixFrom(a, bits).Masked()
	return slices.ContainsFunc(all, p.Contains)
}

// hostNeeds returns what the configuration says of them.
func hostNeeds(s *config.Settings) *hostcheck.Needs {
	needs := &hostcheck.Needs{
		Driver: s.LB, FixesHost: s.Forwarding != "off", ForwardsByDevice: s.Forwarding == "devices",
		Gossip: s.BindAddr, Advertise: s.AdvertiseAddr, DNS: s.DNSAddrs,
	}
	switch s.LB {
	case "none":
		needs.Driver = ""
	case "auto":
		needs.Driver = "nft" // what most hosts have
	}
	return needs
}

// OwnFindings implements lookout.Host: this node hears of no other.
func (h *hostView) OwnFindings() (all []hostcheck.Finding) {
	n := h.n
	if why := n.host.Isolation(); why != "" && time.Since(n.started) > aloneFrom {
		f := hostcheck.Finding{
			Code: hostcheck.Alone, Severity: hostcheck.Fault, Document: "OPERATIONS: When something is wrong",
			What: why,
		}
		own := n.host.Addr().String() // a file that is the same on all hosts names it, too
		for _, addr := range n.current().Join {
			if addr != own {
				f.Command = "meshctl join " + addr
				break
			}
		}
		all = append(all, f)
	}
	return all
}
