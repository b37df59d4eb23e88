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
	"meshd/lb"
	"meshd/mesh/control"
	"meshd/state"
)

func (n *Node) describeService(s *state.Service) control.Service {
	c := control.FromService(s)
	c.Degraded = n.degraded(s)
	return c
}

// view returns the view of a network, or why there is none.
func (n *Node) view(ctx context.Context, network string) (state.View, error) {
	if v := n.host.Source().View(network); v != nil {
		return v, nil
	}
	defined := false
	_ = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { _, defined = c.Store().Defs()[network] })
	if !defined {
		return nil, noNetwork(network)
	}
	return nil, control.Refuse(control.CodeNotFound, "ask a node that has tasks in it, or start this one with --networks "+network, "this node takes no part in network %q and does not carry its table (G6)", network)
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
		return nil, control.Refuse(control.CodeNotFound, "meshctl service ls --network "+ref.Network+" lists them", "service %q is not known in network %q", ref.Name, ref.Network)
	}
	return s, nil
}

// Service implements control.ServiceBackend.
func (n *Node) Service(ctx context.Context, ref control.ServiceRef) (control.ServiceDetail, error) {
	s, err := n.service(ctx, ref)
	if err != nil {
		return control.ServiceDetail{}, err
	}
	d := control.ServiceDetail{Service: n.describeService(s), TaskList: control.FromMembers(s), Claims: []control.Claim{}, Warnings: n.notes(ref.Network, ref.Name)}
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
	for _, o := range t.Owners() {
		for _, e := range t.OwnerEntries(o, state.KindVIP) {
			if e.Key() != s.Name {
				continue
			}
			c, _ := state.ParseVIPClaim(e.Key(), e.Body())
			for _, a := range []netip.Addr{c.VIP4, c.VIP6} {
				if a.IsValid() {
					out = append(out, control.Claim{VIP: a, Node: string(o), Pinned: c.Pinned, Birth: c.Birth, Wins: a == s.VIP4 || a == s.VIP6})
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
	return control.FromMembers(s), nil
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
	if req.Type == "" {
		types = []string{"A", "AAAA"}
	}
	out := control.Resolution{Name: req.Name, Network: req.Network, Type: strings.Join(types, ","), Answers: []string{}, Steps: []control.Step{}}
	for _, t := range types {
		e, err := n.dns.Explain(req.Network, req.Name, t)
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

// lbWhy says why the load balancer is what it is.
func (n *Node) lbWhy() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := n.balancer.Status(ctx)
	if err != nil {
		return err.Error()
	}
	return lbReason(n.cfg.LB, &s)
}

func lbReason(choice string, s *lb.Status) string {
	if choice == "none" {
		return "the configuration says lb: none"
	}
	var why []string
	for _, r := range s.Refused {
		why = append(why, r.Driver+": "+r.Reason)
	}
	switch {
	case s.Driver != "" && len(why) > 0:
		return "works; refused before it: " + strings.Join(why, "; ")
	case s.Driver != "":
		return "works"
	case len(why) == 0:
		return "no driver for this system"
	}
	return strings.Join(why, "; ")
}

// LB implements control.ServiceBackend.
func (n *Node) LB(ctx context.Context, network string) (control.LBTable, error) {
	return n.lbTable(ctx, n.balancer, network)
}

// lbTable describes the host's balancer or a sandbox's.
func (n *Node) lbTable(ctx context.Context, b *lb.Balancer, network string) (control.LBTable, error) {
	s, err := b.Status(ctx)
	if err != nil {
		return control.LBTable{}, err
	}
	usage, err := b.Usage(ctx)
	if err != nil && ctx.Err() != nil {
		return control.LBTable{}, err
	}
	t := control.LBTable{Driver: orNone(s.Driver), Why: lbReason(n.cfg.LB, &s), LastError: s.Error, Pending: s.Counters.Pending, Services: []control.LBService{}}
	for i := range s.Services {
		if network == "" || s.Services[i].Network == network {
			t.Services = append(t.Services, n.lbService(&s.Services[i], usage))
		}
	}
	return t, nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (n *Node) lbService(s *lb.ServiceStatus, usage map[lb.Key]lb.Usage) control.LBService {
	out := control.LBService{Network: s.Network, Service: s.Name, VIP: s.Key.VIP, Port: portOf(s.Key), Scheduler: "rr", Counters: control.NoCounters(), Backends: []control.LBBackend{}}
	switch {
	case s.Desired != nil:
		out.Scheduler = s.Desired.Scheduler
	case s.Actual != nil:
		out.Scheduler = s.Actual.Scheduler
	}
	switch {
	case s.Synced:
		out.State = control.LBOK
	case s.Actual == nil:
		out.State = control.LBMissing
	case s.Desired == nil:
		out.State = control.LBExtra
	default:
		out.State = control.LBDiffers
	}
	u, counted := usage[s.Key]
	if counted {
		out.Counters = countersOf(u.Traffic)
	}
	for _, a := range backendAddrs(s) {
		out.Backends = append(out.Backends, n.lbBackend(s, a, u, counted))
	}
	return out
}

func portOf(k lb.Key) string {
	if k.AllPorts() {
		return "all"
	}
	return fmt.Sprintf("%d/%s", k.Port, k.Proto)
}

func backendAddrs(s *lb.ServiceStatus) []netip.AddrPort {
	var all []netip.AddrPort
	for _, x := range []*lb.Service{s.Desired, s.Actual} {
		if x == nil {
			continue
		}
		for _, b := range x.Backends {
			if !slices.Contains(all, b.Addr) {
				all = append(all, b.Addr)
			}
		}
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return all
}

func (n *Node) lbBackend(s *lb.ServiceStatus, a netip.AddrPort, u lb.Usage, counted bool) control.LBBackend {
	b := control.LBBackend{Address: a, Desired: -1, Actual: -1, Counters: control.NoCounters()}
	if s.Desired != nil {
		if x, ok := s.Desired.Backend(a); ok {
			b.Desired = int(x.Weight)
		}
	}
	if s.Actual != nil {
		if x, ok := s.Actual.Backend(a); ok {
			b.Actual = int(x.Weight)
		}
	}
	switch {
	case b.Desired == b.Actual:
		b.State = control.LBOK
	case b.Actual == 0:
		b.State = control.LBDraining
	case b.Actual < 0:
		b.State = control.LBMissing
	case b.Desired < 0:
		b.State = control.LBExtra
	default:
		b.State = control.LBDiffers
	}
	if v := n.host.Source().View(s.Network); v != nil {
		if e := v.ByIP(a.Addr()).Endpoint; e != nil {
			b.Task, b.Node = e.ID(), string(e.Owner())
		}
	}
	if bu, ok := u.Backends[a]; ok && counted {
		b.Counters = countersOf(bu.Traffic)
		b.Counters.Active = int64(bu.Active)
	}
	return b
}

// countersOf returns what was counted; connections that are open are not in it.
func countersOf(t lb.Traffic) control.Counters {
	return control.Counters{
		Active: -1, Connections: t.Connections,
		PacketsIn: t.PacketsIn, PacketsOut: t.PacketsOut, BytesIn: t.BytesIn, BytesOut: t.BytesOut,
	}
}
