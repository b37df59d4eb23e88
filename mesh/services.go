package mesh

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/resolver"
	"meshd/state"
)

func (n *Node) describeService(s *state.Service) control.Service {
	c := control.FromService(s)
	c.Degraded = n.degraded(s)
	return c
}

// known refuses a network that nobody has defined and that this node takes no
// part in: a list of nothing would hide a typing error. "" is all of them.
func (n *Node) known(ctx context.Context, network string) error {
	if network == "" || n.host.Source().View(network) != nil {
		return nil
	}
	defined := false
	err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { _, defined = c.Store().Defs()[network] })
	if err == nil && !defined {
		err = noNetwork(network)
	}
	return err
}

// view returns the view of a network, or why there is none.
func (n *Node) view(ctx context.Context, network string) (state.View, error) {
	if v := n.host.Source().View(network); v != nil {
		return v, nil
	}
	if err := n.known(ctx, network); err != nil {
		return nil, err
	}
	return nil, control.Refuse(control.CodeNotFound,
		"ask a node that has tasks in it, or start this one with --networks "+network,
		"this node takes no part in network %q and does not carry its table", network)
}

// Services implements control.ServiceBackend.
func (n *Node) Services(ctx context.Context, network string) ([]control.Service, error) {
	names, _ := n.host.Source().Networks()
	if network != "" {
		if _, err := n.view(ctx, network); err != nil {
			return nil, err
		}
		names = []string{network}
	}
	out := []control.Service{}
	for _, name := range names {
		v := n.host.Source().View(name)
		if v == nil {
			continue
		}
		for _, s := range v.Services() {
			out = append(out, n.describeService(s))
		}
	}
	return out, nil
}

func (n *Node) service(ctx context.Context, ref control.ServiceRef) (*state.Service, error) {
	v, err := n.view(ctx, ref.Network)
	if err != nil {
		return nil, err
	}
	s := v.Service(ref.Name)
	if s == nil {
		return nil, control.Refuse(control.CodeNotFound, "meshctl service ls --network "+ref.Network+" lists them",
			"service %q is not known in network %q", ref.Name, ref.Network)
	}
	return s, nil
}

// Service implements control.ServiceBackend.
func (n *Node) Service(ctx context.Context, ref control.ServiceRef) (control.ServiceDetail, error) {
	s, err := n.service(ctx, ref)
	if err != nil {
		return control.ServiceDetail{}, err
	}
	d := control.ServiceDetail{
		Service: n.describeService(s), TaskList: control.FromMembers(s), Claims: []control.Claim{},
		Warnings: n.notes(ref.Network, ref.Name),
	}
	domain := strings.TrimSuffix(n.cfg.Domain, ".")
	for _, name := range append([]string{s.Name, "tasks." + s.Name}, s.Aliases...) {
		d.Names = append(d.Names, name, fmt.Sprintf("%s.%s.%s", name, s.Network, domain))
	}
	if d.Warnings == nil {
		d.Warnings = []string{}
	}
	err = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { d.Claims = claims(c.Store().Table(ref.Network), s) })
	return d, err
}

// claims lists who carries what for a service, the winner first.
func claims(t *state.Table, s *state.Service) []control.Claim {
	out := []control.Claim{}
	if t == nil {
		return out
	}
	wins := t.Assignment(s.Name).Canonical // also where it is not served: see V12
	for _, o := range t.Owners() {
		for _, e := range t.OwnerEntries(o, state.KindVIP) {
			if e.Key() != s.Name {
				continue
			}
			c, _ := state.ParseVIPClaim(e.Key(), e.Body())
			for _, a := range []netip.Addr{c.VIP4, c.VIP6} {
				if a.IsValid() {
					out = append(out, control.Claim{VIP: a, Node: string(o), Pinned: c.Pinned, Birth: c.Birth, Wins: a == wins.VIP4 ||
						a == wins.VIP6})
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b control.Claim) int {
		switch {
		case a.Wins != b.Wins && a.Wins:
			return -1
		case a.Wins != b.Wins:
			return 1
		}
		return a.VIP.Compare(b.VIP)
	})
	return out
}

// ServiceTasks implements control.ServiceBackend.
func (n *Node) ServiceTasks(ctx context.Context, ref control.ServiceRef) ([]control.Task, error) {
	s, err := n.service(ctx, ref)
	if err != nil {
		return nil, err
	}
	return append(control.FromMembers(s), n.barredOf(ctx, ref.Network, ref.Name)...), nil
}

// notes tells what a service's view leaves out: hidden tasks and their nodes.
func (n *Node) notes(network, service string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	hidden := map[state.NodeID]int{}
	_ = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		t := c.Store().Table(network)
		if t == nil {
			return
		}
		for _, o := range t.Owners() {
			if c.Store().Liveness(o) != state.Dead {
				continue
			}
			for _, e := range t.OwnerEntries(o, state.KindEndpoint) {
				if e.Group() == service {
					hidden[o]++
				}
			}
		}
	})
	var out []string
	for _, t := range n.barredOf(ctx, network, service) {
		out = append(out, fmt.Sprintf("task %s of node %s is not served: %s", t.ID, t.Node, t.Reason))
	}
	for _, o := range slices.Sorted(maps.Keys(hidden)) {
		out = append(out, fmt.Sprintf("%d hidden because node %s is dead or left", hidden[o], o))
	}
	return out
}

// Resolve implements control.ServiceBackend.
func (n *Node) Resolve(ctx context.Context, req control.ResolveRequest) (control.Resolution, error) {
	if _, err := n.view(ctx, req.Network); err != nil {
		return control.Resolution{}, err
	}
	types := []string{req.Type}
	if _, err := netip.ParseAddr(req.Name); err == nil && req.Type == "" {
		types = []string{"PTR"}
	} else if req.Type == "" {
		types = []string{"A", "AAAA"}
	}
	out := control.Resolution{
		Name: req.Name, Network: req.Network, Type: strings.Join(types, ","), Answers: []string{},
		Steps: []control.Step{},
	}
	for _, t := range types {
		e, err := n.explain(ctx, req, t)
		if err != nil {
			return out, control.Refuse(control.CodeInvalid, "", "%v", err)
		}
		if out.RCode == "" || len(e.Answer) > 0 {
			out.RCode = e.Rcode
		}
		if out.RCode == "" {
			out.RCode = e.Outcome
		}
		out.Answers = append(out.Answers, e.Answer...)
		for i, s := range e.Steps {
			step := control.Step{Scope: e.Scope, Rule: s.Rule, Answer: []string{}, Why: s.Text}
			if i == len(e.Steps)-1 {
				step.Answer = e.Answer
			}
			if !slices.ContainsFunc(out.Steps, func(o control.Step) bool { return o.Rule == step.Rule && o.Why == step.Why }) {
				out.Steps = append(out.Steps, step)
			}
		}
	}
	out.TTL = ttlOf(out.Answers)
	return out, nil
}

// explain says how one question is answered; a trace asks the upstreams too.
func (n *Node) explain(ctx context.Context, req control.ResolveRequest, qtype string) (resolver.Explanation, error) {
	if req.Trace {
		return n.dns.Trace(ctx, req.Network, req.Name, qtype)
	}
	return n.dns.Explain(req.Network, req.Name, qtype)
}

// ttlOf reads the TTL of the first record in zone-file syntax.
func ttlOf(records []string) uint32 {
	for _, r := range records {
		if f := strings.Fields(r); len(f) > 1 {
			ttl, err := strconv.ParseUint(f[1], 10, 32)
			if err == nil {
				return uint32(ttl)
			}
		}
	}
	return 0
}
