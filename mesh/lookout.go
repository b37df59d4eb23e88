package mesh

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshd/gossip"
	"meshd/lb/hostcheck"
	"meshd/lb/hostmend"
	"meshd/lb/hostread"
	"meshd/mesh/config"
	"meshd/mesh/control"
	"meshd/mesh/registry"
	"meshd/state"
)

// How often the host is looked at: what notifies nobody, as sysctls do, is seen
// after lookEvery; whether there was anything else is asked each lookAsk.
const (
	lookEvery = 5 * time.Second
	lookAsk   = time.Second
	lookRest  = 50               // after a look that took t, none for so many times t
	aloneFrom = 10 * time.Second // after the start: a mesh is joined by then
	maxWays   = 256              // subnets of backends, to which the ways are asked for
	samples   = 16               // of backends and peers, for what firewalls make of them
)

// lookout watches whether the host lets the node do its work (L13). It is safe
// for concurrent use.
type lookout struct {
	one        turn // guards what follows
	reader     hostread.Reader
	registered *registry.Snapshot // when it was asked last whether anything had changed
	told       hostTeller
	boxes      boxLooks
	host       []hostcheck.Finding // what was found, but for what is inside of sandboxes

	mu    sync.Mutex // guards all below
	found []hostcheck.Finding
	count lookCounters
}

// lookCounters are running totals.
type lookCounters struct {
	looks, inside, mended uint64
	spent                 time.Duration
}

func newLookout() *lookout {
	return &lookout{one: newTurn(), reader: hostread.Open(), boxes: boxLooks{found: map[string][]hostcheck.Finding{}}}
}

// latest returns what was found last, which must not be changed.
func (l *lookout) latest() []hostcheck.Finding {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.found
}

// countInside counts a look into a sandbox.
func (l *lookout) countInside() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.inside++
}

func (l *lookout) counters() lookCounters {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// lookOut looks at the host until ctx ends.
func (n *Node) lookOut(ctx context.Context) error {
	defer n.lookout.reader.Close()
	tick := time.NewTicker(lookAsk)
	defer tick.Stop()
	var next, due time.Time
	for {
		select {
		case <-ctx.Done():
			_ = n.lookout.one.take(context.WithoutCancel(ctx)) // nobody reads any more
			return nil
		case <-tick.C:
		}
		now := time.Now()
		if now.Before(next) {
			continue
		}
		before := n.lookout.counters().spent
		if now.Before(due) && !n.moved(ctx) {
			n.lookIntoSome(ctx)
		} else {
			_, _ = n.look(ctx, boxesPerTurn, boxesTime)
			due = now.Add(lookEvery)
		}
		next = now.Add(lookRest * (n.lookout.counters().spent - before))
	}
}

// moved reports whether the host may not be as it was looked at.
func (n *Node) moved(ctx context.Context) bool {
	if n.lookout.one.take(ctx) != nil {
		return false
	}
	defer n.lookout.one.give()
	registered := n.reg.Snapshot()
	if registered != n.lookout.registered {
		n.lookout.registered = registered
		return true
	}
	return n.lookout.reader.Changed()
}

// lookIntoSome looks into some sandboxes, while the host is as it was.
func (n *Node) lookIntoSome(ctx context.Context) {
	l := n.lookout
	if len(n.boxes.list()) == 0 || l.one.take(ctx) != nil {
		return
	}
	defer l.one.give()
	begin := time.Now()
	n.publishFound(begin, n.lookInside(ctx, boxesPerTurn, boxesTime))
}

// publishFound makes what was found known, with what is inside of sandboxes.
func (n *Node) publishFound(begin time.Time, inside []hostcheck.Finding) []hostcheck.Finding {
	l := n.lookout
	found := slices.Concat(l.host, inside)
	slices.SortStableFunc(found, func(a, b hostcheck.Finding) int { return cmp.Compare(a.Severity, b.Severity) })
	took := time.Since(begin) // with what was mended: programs that are run take longest
	l.mu.Lock()
	l.found = found
	l.count.spent += took
	l.mu.Unlock()
	n.tellFound(begin, found)
	return found
}

// look looks at the host once, and into some sandboxes, mends what is the node's to
// mend, and tells what has changed.
func (n *Node) look(ctx context.Context, boxes int, limit time.Duration) ([]hostcheck.Finding, error) {
	l := n.lookout
	if err := l.one.take(ctx); err != nil {
		return nil, err
	}
	defer l.one.give()
	needs, err := n.hostNeeds(ctx)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	want := hostread.Want{Tasks: needs.Tasks, Schedulers: needs.Schedulers, Destinations: slices.Concat(needs.Backends, needs.Peers)}
	facts := l.reader.Read(want)
	n.sysctls.keepPorts(facts.Devices)
	found, lets := hostcheck.Check(facts, needs)
	if needs.Driver != "" {
		unplaced := hostcheck.UnknownPorts(facts, needs)
		for _, a := range unplaced[:min(len(unplaced), samples)] {
			_ = hostmend.ResolveAddress(a) // the next look knows
		}
	}
	mended := n.mend(facts, needs)
	if n.accept(ctx, lets) || mended {
		found = hostcheck.Findings(l.reader.Read(want), needs)
	}
	l.host = append(found, n.ownFindings()...)
	l.mu.Lock()
	l.count.looks++
	l.mu.Unlock()
	return n.publishFound(begin, n.lookInside(ctx, boxes, limit)), nil
}

// hostNeeds returns what this node does on its host.
func (n *Node) hostNeeds(ctx context.Context) (*hostcheck.Needs, error) {
	needs := hostNeeds(n.cfg)
	needs.Gossip = netip.AddrPortFrom(needs.Gossip.Addr(), n.host.Addr().Port())
	needs.DNS = n.dnsAddrs
	needs.Driver = ""
	if n.balancer != nil {
		needs.Driver = n.balancer.Counters().Driver
	}
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
			n.needsOf(v, needs)
		}
	}
	if n.balancer != nil { // what is refused, as one that has the host's addresses, is not to be let through
		served := n.balancer.Pools()
		needs.Pools = slices.DeleteFunc(needs.Pools, func(p netip.Prefix) bool { _, ok := served[p]; return !ok })
	}
	return needs, err
}

// needsOf adds what one network asks of the host.
func (n *Node) needsOf(v state.View, needs *hostcheck.Needs) {
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
		for _, m := range s.Members {
			to, most := &needs.Backends, maxWays
			if m.Owner() == state.NodeID(n.cfg.Node) {
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

// mend switches hairpin mode on for ports of tasks of this host, and forwarding of
// devices where that is asked for, unless the host's administrator sees to such things. It reports whether it
// changed anything.
func (n *Node) mend(f *hostcheck.Facts, needs *hostcheck.Needs) (changed bool) {
	if !needs.FixesHost || needs.Driver == "" {
		return false
	}
	if needs.ForwardsByDevice {
		settings := hostcheck.MissingForwarding(f, needs)
		if err := switchOn(settings, n.sysctls.note); err != nil {
			n.log.Debug("devices cannot be made to forward", "error", err)
		} else if len(settings) > 0 {
			changed = true
			n.tellMended("forwarding", func(before int) {
				n.log.Warn("devices forward now, so that containers reach VIPs; meshd cleanup puts it back", "settings", settings,
					"times_before", before)
			})
		}
	}
	for _, name := range hostcheck.MissingHairpin(f, needs) {
		port, err := hostmend.Hairpin(name)
		if err != nil {
			n.log.Debug("a port of a bridge cannot be mended", "port", name, "error", err)
			continue
		}
		changed = true
		n.sysctls.notePort(port)
		n.tellMended("hairpin "+name, func(before int) {
			n.log.Warn("hairpin mode is on for a port of a bridge, so that its container reaches itself through a VIP; "+
				"forwarding: off leaves that to you, and meshd cleanup puts it back", "port", name, "times_before", before)
		})
	}
	return changed
}

// ownFindings are those that are not the host's, but the node's.
func (n *Node) ownFindings() (all []hostcheck.Finding) {
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

// explainHost adds to a status what of the host is against the node.
func (n *Node) explainHost(s *control.Status) {
	found := n.lookout.latest()
	for _, f := range found {
		if f.Severity == hostcheck.Fault {
			s.Degraded = append(s.Degraded, f.String())
		} else {
			s.Warnings = append(s.Warnings, f.String())
		}
	}
}

// Doctor implements control.NodeBackend.
func (n *Node) Doctor(ctx context.Context) (control.Doctor, error) {
	found, err := n.look(ctx, boxesAsked, time.Second)
	if err != nil {
		return control.Doctor{}, err
	}
	d := doctorOf(found)
	d.Node = n.cfg.Node
	return d, nil
}

func doctorOf(found []hostcheck.Finding) control.Doctor {
	d := control.Doctor{At: time.Now(), Findings: []control.HostFinding{}}
	for _, f := range found {
		d.Findings = append(d.Findings, control.HostFinding{
			Code: string(f.Code), Severity: string(f.Severity), What: f.What,
			Command: f.Command, Document: f.Document,
		})
	}
	return d
}

// Examine looks at a host on which no meshd runs yet, as one with that
// configuration would find it. What keeps such a meshd from starting is a
// finding, too.
func Examine(cfg config.Config) control.Doctor {
	s, err := cfg.Check()
	if err != nil {
		return doctorOf([]hostcheck.Finding{{
			Code: hostcheck.Configuration, Severity: hostcheck.Fault, What: "meshd would not start: " + err.Error(),
			Document: "OPERATIONS: Files",
		}})
	}
	r := hostread.Open()
	defer r.Close()
	needs := hostNeeds(s)
	return doctorOf(hostcheck.Findings(r.Read(hostread.Want{}), needs))
}

// lookout tells of the looks at the host.
func (e emitter) lookout(l *lookout) {
	found := l.latest()
	count := map[hostcheck.Code]int{}
	for _, f := range found {
		count[f.Code]++
	}
	for _, code := range hostcheck.Codes() {
		e.gauge("meshd_host_findings", "What of the host is against meshd, by kind; meshctl doctor says more.",
			float64(count[code]), "code", string(code))
	}
	c := l.counters()
	e.counter("meshd_host_looks_total", "Looks at the host for what is against meshd.", c.looks)
	e.counter("meshd_host_looks_inside_total", "Looks into sandboxes for the same.", c.inside)
	e.send(prometheus.CounterValue, "meshd_host_looks_seconds_total", "Time that they took.", c.spent.Seconds())
	e.counter("meshd_host_mended_total",
		"How often ports of bridges were put into hairpin mode, devices made to forward, and rules added to chains of "+
			"firewalls or taken back from there.", c.mended)
}

// sourceFor returns the address of the host that backends answer to: the one that
// others dial, unless it is translated on its way here, or the one that this node
// listens on; an invalid one leaves the choice to the kernel.
func (n *Node) sourceFor() netip.Addr {
	facts, _ := n.watch.Facts()
	for _, a := range []netip.Addr{n.host.Addr().Addr(), n.cfg.BindAddr.Addr()} {
		if facts.Unknown != "" || facts.HasAddress(a) {
			return a
		}
	}
	return netip.Addr{}
}
