package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"meshd/lb"
	"meshd/lb/hostfacts"
	"meshd/lb/hostwatch"
	"meshd/lb/rulewatch"
	"meshd/mesh/control"
	"meshd/state"
)

// balancers are the load balancers of a node, by the name of their sandbox;
// the host's has none. It is safe for concurrent use; the zero value is empty.
type balancers struct {
	mu  sync.Mutex // guards all
	all map[string]balanced
}

// balanced is a load balancer with what watches its namespace for it.
type balanced struct {
	*lb.Balancer
	facts *hostwatch.Watcher // of addresses and routes
	rules *rulewatch.Watcher // of the nftables ruleset
}

// watched returns the balancer of that name with its watchers.
func (b *balancers) watched(sandbox string) (one balanced, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one, ok = b.all[sandbox]
	return one, ok
}

// add makes a balancer known, in place of the one of that name.
func (b *balancers) add(sandbox string, one balanced) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[string]balanced{}
	}
	b.all[sandbox] = one
}

// drop forgets a balancer.
func (b *balancers) drop(sandbox string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, sandbox)
}

// get returns the balancer of that name, or nil.
func (b *balancers) get(sandbox string) *lb.Balancer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all[sandbox].Balancer
}

// names returns all names, the host's first.
func (b *balancers) names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.all))
}

// balancerConfig returns the settings that the host's balancer and those of
// sandboxes share.
func (n *Node) balancerConfig(sandbox string) lb.Config {
	log := n.log
	if sandbox != "" {
		log = log.With("sandbox", sandbox)
	}
	return lb.Config{
		Source: n.host.Source(), Log: log, Verify: time.Duration(n.cfg.LBVerify),
		OnDrift:   func(r lb.Report) { n.emit(driftEvent(sandbox, r)) },
		OnRefused: func(network string, against []hostfacts.Conflict) { n.emit(refusedEvent(sandbox, network, against)) },
	}
}

// driftEvent tells watchers what somebody else changed.
func driftEvent(sandbox string, r lb.Report) control.Event {
	repaired := 0
	for _, f := range r.Findings {
		if f.Repaired {
			repaired++
		}
	}
	detail := fmt.Sprintf("%d differences, %d repaired; first: %s", len(r.Findings)+r.More, repaired, r.Findings[0])
	if sandbox != "" {
		detail = "sandbox " + sandbox + ": " + detail
	}
	return control.Event{Type: control.EventLBDrift, Detail: detail}
}

// lbWhy says why the host's load balancer is what it is.
func (n *Node) lbWhy() string {
	if n.cfg.LB == "none" {
		return lbReason(n.cfg.LB, nil)
	}
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
	case s.Driver != "" && !s.Ready && s.Error != "":
		return "does not work now: " + s.Error
	case s.Driver != "" && len(why) > 0:
		return "works; refused before it: " + strings.Join(why, "; ")
	case s.Driver != "":
		return "works"
	case len(why) == 0:
		return "no driver for this system"
	}
	return strings.Join(why, "; ")
}

// balancerOf returns the balancer of a sandbox, or the host's for "".
func (n *Node) balancerOf(sandbox string) (*lb.Balancer, error) {
	if b := n.balancers.get(sandbox); b != nil {
		return b, nil
	}
	return nil, control.Refuse(control.CodeNotFound, "", "no sandbox %q with a load balancer on this node", sandbox)
}

// LB implements control.ServiceBackend.
func (n *Node) LB(ctx context.Context, req control.LBRequest) (control.LBTable, error) {
	if err := n.reg.Known(ctx, req.Network); err != nil {
		return control.LBTable{}, err
	}
	b, err := n.balancerOf(req.Sandbox)
	if err != nil {
		return control.LBTable{}, err
	}
	t, err := n.lbTable(ctx, b, req.Network)
	t.Sandbox = req.Sandbox
	if req.Service != "" {
		t.Services = slices.DeleteFunc(t.Services, func(s control.LBService) bool { return s.Service != req.Service })
	}
	return t, err
}

// lbTable describes the host's balancer or a sandbox's, in one network or in
// all.
func (n *Node) lbTable(ctx context.Context, b *lb.Balancer, network string) (control.LBTable, error) {
	s, err := b.Status(ctx)
	if err != nil {
		return control.LBTable{}, err
	}
	usage, err := b.Usage(ctx)
	if err != nil && ctx.Err() != nil {
		return control.LBTable{}, err
	}
	t := control.LBTable{
		Driver: orNone(s.Driver), Why: lbReason(n.cfg.LB, &s), InSync: s.Driver != "" && s.Ready && s.Counters.Pending == 0,
		LastApply: s.Counters.LastApplyAt, LastError: s.Error, Pending: s.Counters.Pending, Draining: s.Counters.Draining,
		Services: []control.LBService{},
	}
	if err != nil && t.LastError == "" {
		t.LastError = "counters: " + err.Error()
	}
	if latest, _ := b.LastReport(); latest != nil {
		t.LastVerify = reportOf("", latest)
		t.LastVerify.Differences = []control.LBDifference{}
	}
	for i := range s.Services {
		one := &s.Services[i]
		if one.State != lb.EntryOK && one.State != lb.EntryDraining {
			t.InSync = false
		}
		if network == "" || one.Network == network {
			t.Services = append(t.Services, n.lbService(one, usage))
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
	out := control.LBService{
		Network: s.Network, Service: s.Name, VIP: s.Key.VIP, Port: portOf(s.Key), State: string(s.State), Error: s.Error,
		Counters: control.NoCounters(), Backends: []control.LBBackend{},
	}
	for _, one := range []*lb.Service{s.Actual, s.Desired} {
		if one != nil {
			out.Scheduler = one.Scheduler
		}
	}
	out.RunsAs = s.RunsAs
	u, counted := usage[s.Key]
	if counted {
		out.Counters = countersOf(u.Traffic)
		out.Counters.Active = 0
	}
	for _, b := range s.Backends {
		one := n.lbBackend(s, b)
		if bu, ok := u.Backends[b.Addr]; ok {
			one.Counters = countersOf(bu.Traffic)
			one.Counters.Active = int64(bu.Active)
			out.Counters.Active += int64(bu.Active)
		} else if counted && b.Actual >= 0 {
			one.Counters.Active = 0
		}
		out.Backends = append(out.Backends, one)
	}
	return out
}

func portOf(k lb.Key) string {
	if k.AllPorts() {
		return "all/" + k.Proto.String()
	}
	return fmt.Sprintf("%d/%s", k.Port, k.Proto)
}

func (n *Node) lbBackend(s *lb.ServiceStatus, from lb.BackendStatus) control.LBBackend {
	b := control.LBBackend{
		Address: from.Addr, Desired: from.Desired, Actual: from.Actual, State: string(from.State), Until: from.Deadline,
		Counters: control.NoCounters(),
	}
	if e := n.taskAt(s.Network, s.Name, from.Addr.Addr()); e != nil {
		task := e.Endpoint()
		b.Task, b.TaskName, b.Node = e.ID(), task.TaskName(), string(e.Owner())
	}
	return b
}

// taskAt returns the task of a service with that address; else whoever has it.
func (n *Node) taskAt(network, service string, a netip.Addr) *state.Entry {
	v := n.host.Source().View(network)
	if v == nil {
		return nil
	}
	if s := v.Service(service); s != nil {
		for _, m := range s.Members {
			if m.Addr4() == a || m.Addr6() == a {
				return m
			}
		}
	}
	return v.ByIP(a).Endpoint
}

// countersOf returns what was counted; connections that are open are not in it.
func countersOf(t lb.Traffic) control.Counters {
	return control.Counters{
		Active: -1, Connections: t.Connections,
		PacketsIn: t.PacketsIn, PacketsOut: t.PacketsOut, BytesIn: t.BytesIn, BytesOut: t.BytesOut,
	}
}

// VerifyLB implements control.ServiceBackend. Balancers are compared one after
// the other: each holds up its own changes only while it is read.
func (n *Node) VerifyLB(ctx context.Context, req control.LBVerifyRequest) (control.LBVerifyReply, error) {
	names := n.balancers.names()
	if req.Sandbox != "" || req.Host {
		names = []string{req.Sandbox}
	}
	reply := control.LBVerifyReply{InSync: true, Reports: []control.LBReport{}}
	for _, name := range names {
		b, err := n.balancerOf(name)
		if err != nil && req.Sandbox == "" {
			continue // detached meanwhile
		}
		if err != nil {
			return reply, err
		}
		r, err := b.Verify(ctx, !req.ReportOnly)
		switch {
		case errors.Is(err, lb.ErrStopped) && name != "" && req.Sandbox == "":
			continue // detached meanwhile
		case errors.Is(err, lb.ErrStopped):
			return reply, control.Refuse(control.CodeUnavailable, "", "the load balancer has stopped")
		case err != nil:
			return reply, fmt.Errorf("compare the load balancer with the kernel: %w", err)
		}
		report := reportOf(name, &r)
		reply.InSync = reply.InSync && report.Result == control.LBInSync
		reply.Reports = append(reply.Reports, report)
	}
	return reply, nil
}

// reportOf describes a comparison.
func reportOf(sandbox string, r *lb.Report) control.LBReport {
	out := control.LBReport{
		Sandbox: sandbox, Driver: orNone(r.Driver), At: r.At, TookMillis: float64(r.Took.Microseconds()) / 1000,
		Result: resultOf(r), Full: r.Full, Services: r.Services, Backends: r.Backends, Pending: r.Pending,
		Found: len(r.Findings) + r.More, Differences: []control.LBDifference{}, Error: r.Error,
	}
	for _, f := range r.Findings {
		if f.Repaired {
			out.Repaired++
		}
		out.Differences = append(out.Differences, control.LBDifference{
			Area: string(f.Area), Kind: string(f.Kind), What: f.What, Found: f.Found, Want: f.Want, Repaired: f.Repaired,
			Note: f.Outcome,
		})
	}
	return out
}

func resultOf(r *lb.Report) string {
	switch {
	case r.Error != "":
		return control.LBFailed
	case len(r.Findings) > 0:
		return control.LBDrift
	case r.Pending > 0:
		return control.LBBehind
	}
	return control.LBInSync
}

// lbHealth sums up all balancers, the host's first.
func (n *Node) lbHealth(ctx context.Context) []control.LBHealth {
	var all []control.LBHealth
	for _, name := range n.balancers.names() {
		b := n.balancers.get(name)
		if b == nil {
			continue
		}
		h := control.LBHealth{Sandbox: name, Driver: "none"}
		s, err := b.Status(ctx)
		if err != nil {
			h.Why = err.Error()
			all = append(all, h)
			continue
		}
		c := &s.Counters
		h.Driver, h.Why, h.LastError = orNone(s.Driver), lbReason(n.cfg.LB, &s), s.Error
		h.Services, h.Desired, h.Pending, h.Draining = c.Services, c.Desired, c.Pending, c.Draining
		h.InSync = s.Ready && c.Pending == 0
		if latest, _ := b.LastReport(); latest != nil {
			h.LastVerify, h.LastResult = latest.At, resultOf(latest)
			h.InSync = h.InSync && latest.Error == "" && unrepaired(latest) == 0
		}
		all = append(all, h)
	}
	return all
}

func unrepaired(r *lb.Report) int {
	left := r.More
	for _, f := range r.Findings {
		if !f.Repaired {
			left++
		}
	}
	return left
}

// driftMemory is how long "meshctl status" shows what somebody else changed.
const driftMemory = 10 * time.Minute

// explainLB adds to a status what is not well with the load balancers.
func (n *Node) explainLB(s *control.Status) {
	s.Warnings = append(s.Warnings, n.forwarding()...)
	if facts, _ := n.watch.Facts(); facts.Unknown != "" && n.cfg.LB != "none" {
		s.Degraded = append(s.Degraded,
			"the host's addresses and routes are not known, so that no VIP pool is served here; it is tried again: "+facts.Unknown)
	}
	for _, h := range s.LB {
		of, in := "", ""
		if h.Sandbox != "" {
			of, in = " of sandbox "+h.Sandbox, "sandbox "+h.Sandbox+": "
		}
		switch {
		case h.Driver == "none" && n.cfg.LB != "none":
			s.Degraded = append(s.Degraded, "no load balancer"+of+": "+h.Why+"; vip services are answered with their tasks")
		case h.Pending > 0:
			s.Degraded = append(s.Degraded,
				fmt.Sprintf("load balancer%s: %d services are not as they should be and are tried again: %s", of, h.Pending,
					h.LastError))
		case h.LastError != "":
			s.Degraded = append(s.Degraded, "load balancer"+of+": "+h.LastError)
		}
		b := n.balancers.get(h.Sandbox)
		if b == nil {
			continue
		}
		if c := b.Counters(); c.Waiting > 0 {
			s.Degraded = append(s.Degraded,
				fmt.Sprintf("load balancer%s: %d services refuse connections, since all of them together have too many ports "+
					"and backends; meshctl service ls shows who has many", of, c.Waiting))
		}
		s.Degraded = append(s.Degraded, refusals(b, in)...)
		if _, drifted := b.LastReport(); drifted != nil && time.Since(drifted.At) < driftMemory {
			s.Warnings = append(s.Warnings, fmt.Sprintf("load balancing%s was changed by someone else %v ago: %s",
				of, time.Since(drifted.At).Round(time.Second), driftEvent("", *drifted).Detail))
		}
	}
}
