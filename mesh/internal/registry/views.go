package registry

import (
	"context"

	"meshd/mesh/control"
	"meshd/state"
)

// Known refuses a network that nobody has defined and that this node takes no
// part in: a list of nothing would hide a typing error. "" is all of them.
func (r *Registry) Known(ctx context.Context, network string) error {
	if network == "" || r.source().View(network) != nil {
		return nil
	}
	defined := false
	err := r.do(ctx, func(c Core) { _, defined = c.Store().Defs()[network] })
	if err == nil && !defined {
		err = NoNetwork(network)
	}
	return err
}

// View returns the view of a network, or why there is none.
func (r *Registry) View(ctx context.Context, network string) (state.View, error) {
	if v := r.source().View(network); v != nil {
		return v, nil
	}
	if err := r.Known(ctx, network); err != nil {
		return nil, err
	}
	return nil, control.Refuse(control.CodeNotFound,
		"ask a node that has tasks in it, or start this one with --networks "+network,
		"this node takes no part in network %q and does not carry its table", network)
}

// NoNetwork is the error about a network that this node does not know.
func NoNetwork(name string) error {
	return control.Refuse(control.CodeNotFound,
		"meshctl network ls lists those that are; another node's takes a moment to arrive", "network %q is not known here",
		name)
}

// noNetworkYet is NoNetwork for who is about to use the network.
func noNetworkYet(name string) error {
	return control.Refuse(control.CodeNotFound,
		"create it: meshctl network create "+name+" --subnet 10.96.0.0/16 (or wait: another node's network takes a moment "+
			"to arrive)", "network %q is not known here", name)
}

// degraded says why a vip service is answered like dnsrr (R5, V7), or "".
func (r *Registry) degraded(s *state.Service) string {
	switch {
	case s.Mode != state.ModeVIP:
		return ""
	case !s.VIP4.IsValid() && !s.VIP6.IsValid() && s.Conflict != "":
		return s.Conflict
	case r.withoutFamily(s) != "":
		return r.withoutFamily(s)
	case !r.cfg.Balancing.VIPsUsable():
		return "no load balancer on this node: " + r.cfg.Balancing.Why() + "; vip services are answered with their tasks"
	case r.cfg.Balancing.WhyNoVIPs(s.Network) != "":
		return "the network is not served by this node: " + r.cfg.Balancing.WhyNoVIPs(s.Network) +
			"; vip services are answered with their tasks"
	}
	return ""
}
