package registry

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"meshd/mesh/control"
	"meshd/state"
)

// admitAddresses refuses addresses that no task can have.
func (api *TaskAPI) admitAddresses(p *control.ParsedTask) error {
	own := hostPrefixes() // none: there is nothing to compare with
	if subnet := state.BroadcastSubnet(p.Endpoint.IP4, own); subnet.IsValid() {
		return control.Refuse(control.CodeRefused, "give the address of the task itself",
			"ips: %s is the broadcast address of %s", p.Endpoint.IP4, subnet)
	}
	for _, a := range []netip.Addr{p.Endpoint.IP4, p.Endpoint.IP6} {
		if a.IsLoopback() && !api.r.cfg.AllowLoopbackTasks {
			return control.Refuse(control.CodeRefused,
				"give the address at which other hosts reach the task; for trials on one host start meshd with "+
					"--allow-loopback-tasks", "ips: %s is every host's own", a)
		}
	}
	return nil
}

// oddAddresses warns of addresses of a new task that are probably a typing error.
func (api *TaskAPI) oddAddresses(ctx context.Context, p *control.ParsedTask) []string {
	own := hostPrefixes()
	nodes, _ := api.r.cfg.Peers.Nodes(ctx) // none: no warning
	return addressWarnings([]netip.Addr{p.Endpoint.IP4, p.Endpoint.IP6}, own, nodes)
}

// addressWarnings compares the addresses of a task with those of the host's devices and
// of the nodes.
func addressWarnings(task []netip.Addr, own []netip.Prefix, nodes []control.Node) (out []string) {
	for _, a := range task {
		if !a.IsValid() {
			continue
		}
		for _, p := range own {
			if a.Is4() && p.Bits() <= 30 && p.Masked().Addr() == a && p.Addr() != a {
				out = append(out, fmt.Sprintf("%s is the subnet %s itself, and rarely the address of a host in it", a, p.Masked()))
				break
			}
		}
		for _, node := range nodes {
			if at, err := netip.ParseAddrPort(node.Address); err == nil && at.Addr().Unmap() == a && !node.Self {
				out = append(out, fmt.Sprintf("%s is the address of node %s: a task there is registered there, or its end is "+
					"not noticed", a, node.Name))
			}
		}
	}
	return out
}

// admitPin refuses addresses that a service cannot have as its VIPs.
func admitPin(c Core, p *control.ParsedTask, def state.NetworkDef) error {
	for _, v := range p.VIPs {
		if !v.Is4() {
			if !def.Subnet6.IsValid() {
				return control.Refuse(control.CodeRefused, "leave it out, or use a network with an IPv6 pool",
					"vips: %s is not in the pool %s of network %q", v, PoolsText(def), p.Network)
			}
			if v != state.VIP6(&def, p.Endpoint.Service) {
				return control.Refuse(control.CodeRefused, "leave it out: it is "+state.VIP6(&def, p.Endpoint.Service).String(),
					"vips: the IPv6 VIP of a service follows from its name and cannot be pinned to %s", v)
			}
			continue
		}
		if !def.Subnet4.Contains(v) {
			return control.Refuse(control.CodeRefused, "choose an address of the pool",
				"vips: %s is not in the pool %s of network %q", v, PoolsText(def), p.Network)
		}
		if v == def.Subnet4.Addr() || !def.Subnet4.Contains(v.Next()) {
			return control.Refuse(control.CodeRefused, "choose one between the first and the last of the pool",
				"vips: %s is the network or broadcast address of the pool %s", v, def.Subnet4)
		}
		t := c.Store().Table(p.Network)
		if t == nil {
			continue
		}
		if holder := t.Holder(v); holder != "" && holder != p.Endpoint.Service {
			return control.Refuse(control.CodeConflict,
				"choose a free address; meshctl service ls --network "+p.Network+" shows the used ones",
				"vips: %s is the VIP of service %q", v, holder)
		}
	}
	return nil
}

// hostPrefixes returns the addresses of this host's devices with their subnets.
func hostPrefixes() (own []netip.Prefix) {
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p)
		}
	}
	return own
}
