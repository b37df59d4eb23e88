package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/lb"
	"meshd/lb/holder"
	"meshd/lb/hostwatch"
	"meshd/lb/rulewatch"
	"meshd/mesh/box"
	"meshd/mesh/control"
	"meshd/mesh/registry"
	"meshd/mesh/store"
	"meshd/resolver"
	"meshd/state"
)

// openSandboxes finds the sandboxes of the last life again. It comes before restore.
func (n *Node) openSandboxes() (err error) {
	n.boxes, err = box.Open(box.Config{
		Store: sandboxesFile{n.dir}, Registry: boxRegistry{n.reg, n.TaskAPI},
		Balancing: &boxBalancing{n: n, budget: prompts()}, Names: boxNames{n.dns},
		Open: box.OpenNamespace, Keeper: box.NewKeeper(), Emit: n.emit,
		Condition: func(key, text string) { n.notices.Set(key, text) }, Log: n.log,
	})
	if err != nil {
		return sandboxesError(n.dir, err)
	}
	n.API = n.boxes.API()
	n.late = append(n.late, n.boxes.Claim)
	return nil
}

// sandboxesFile is sandboxes.json in the data directory.
type sandboxesFile struct{ dir *store.Dir }

func (f sandboxesFile) Load(v any) error { return f.dir.Load(fileSandboxes, v) }
func (f sandboxesFile) Save(v any) error { return f.dir.Save(fileSandboxes, v) }

// readSandboxes reads sandboxes.json.
func readSandboxes(dir *store.Dir) ([]box.Saved, error) {
	list, err := box.Read(sandboxesFile{dir})
	return list, sandboxesError(dir, err)
}

// sandboxesError says what to do about a file that meshd cannot have written.
func sandboxesError(dir *store.Dir, err error) error {
	if corrupt, ok := errors.AsType[*box.CorruptError](err); ok {
		return dir.Corrupted(fileSandboxes, corrupt, "restore it from a backup, or move it away and attach again")
	}
	return err
}

// boxRegistry is the registry as sandboxes see it.
type boxRegistry struct {
	*registry.Registry
	*registry.TaskAPI
}

// Listens implements box.Registry.
func (r boxRegistry) Listens(network, service, task string) (ports []box.Port, ok bool) {
	e, ok := r.Snapshot().Task(network, task)
	if !ok || e.Service != service {
		return nil, false
	}
	for _, p := range e.Ports {
		ports = append(ports, box.Port{Number: p.Number, UDP: p.Proto == state.UDP})
	}
	return ports, true
}

// boxNames is the name server as sandboxes see it.
type boxNames struct{ dns *resolver.Server }

// Listen implements box.Names.
func (d boxNames) Listen(l box.Listener) (box.Server, error) {
	bound, err := d.dns.Listen(resolver.Listener{
		Networks: l.Networks, VIPsUsable: l.VIPsUsable, Client: l.Client, Packet: l.Packet, Stream: l.Stream,
	})
	if err != nil {
		return nil, err
	}
	return bound, nil
}

// boxBalancing makes the load balancers of sandboxes.
type boxBalancing struct {
	n      *Node
	budget *lb.Budget // of what others write in all of them
}

// Hold implements box.Balancing.
func (m *boxBalancing) Hold(path string) box.Holder { return holder.New(path) }

// Spend implements box.Balancing.
func (m *boxBalancing) Spend(f func()) (rest time.Duration) { return m.budget.Spend(f) }

// Make implements box.Balancing.
func (m *boxBalancing) Make(at box.Namespaced) (box.Balancer, error) {
	n := m.n
	b := &boxBalancer{n: n, name: at.Name, rules: n.watchRules(at.Path, at.Log), facts: n.watchHost(at.Path, at.Log)}
	b.changes = b.rules.Subscribe()
	cfg := n.balancerConfig(at.Name)
	err := m.configure(&cfg, at, b)
	if err == nil {
		b.Balancer, err = lb.New(cfg)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// configure says what a sandbox's balancer is to be.
func (m *boxBalancing) configure(cfg *lb.Config, at box.Namespaced, b *boxBalancer) (err error) {
	n, owned := m.n, hosting{rules: b.rules}
	choice := n.sandboxDriver(n.cfg.LB)
	if cfg.Drivers, err = drivers(choice, at.Path, owned, at.Log); err != nil {
		return err
	}
	if choice == "none" {
		choice = n.leftBehind()
	}
	if cfg.Former, err = former(choice, at.Path, owned, at.Log); err != nil {
		return err
	}
	cfg.Facts, cfg.RoutesChanged, cfg.MayProgram = b.facts, b.facts.RoutesChanged(), at.MayProgram
	hear(cfg, b.rules)
	cfg.TriggerBudget = m.budget
	cfg.Node = lb.Node{
		Src4: pick(at.Addresses, true), Src6: pick(at.Addresses, false),
		Self: state.NodeID(n.cfg.Node), AllowLoopback: n.cfg.AllowLoopbackTasks,
	}
	cfg.Only = func(network string) bool { return slices.Contains(at.Networks, network) }
	return nil
}

// pick returns the first address of a family, or the zero Addr.
func pick(all []netip.Addr, want4 bool) netip.Addr {
	for _, a := range all {
		if a.Is4() == want4 {
			return a
		}
	}
	return netip.Addr{}
}

// RemoveAll implements box.Balancing.
func (m *boxBalancing) RemoveAll(ctx context.Context, at box.Namespaced) map[string]error {
	failed := map[string]error{}
	ds, err := drivers(m.n.sandboxDriver("auto"), at.Path, hosting{}, at.Log)
	if err != nil {
		failed[""] = err
	}
	for _, d := range ds {
		if errors.Is(d.Probe(ctx), lb.ErrUnsupported) {
			continue // it cannot have made anything
		}
		if err := errors.Join(d.Teardown(ctx), d.Close()); err != nil {
			failed[d.Name()] = err
		}
	}
	return failed
}

// sandboxDriver returns the choice of drivers for a sandbox: what auto comes to
// on the host, once that is known, as the kernel is the same.
func (n *Node) sandboxDriver(choice string) string {
	if choice == "auto" && n.cfg.LB == "auto" && n.balancer.Counters().Driver == "nft" {
		return "nft"
	}
	return choice
}

// boxBalancer is the load balancer of one sandbox, with what watches its namespace.
type boxBalancer struct {
	*lb.Balancer
	n       *Node
	name    string
	facts   *hostwatch.Watcher // of the namespace's addresses and routes
	rules   *rulewatch.Watcher // of its nftables ruleset
	changes <-chan struct{}    // of rules
}

// Start implements box.Balancer.
func (b *boxBalancer) Start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	b.n.balancers.add(b.name, balanced{b.Balancer, b.facts, b.rules})
	g.Go(func() error { return b.facts.Run(ctx) })
	g.Go(func() error { return b.rules.Run(ctx) })
	g.Go(func() error { return b.Run(ctx) })
	return func() {
		b.n.balancers.drop(b.name)
		cancel()
		_ = g.Wait()
	}
}

// Close implements box.Balancer.
func (b *boxBalancer) Close() error { return errors.Join(b.facts.Close(), b.rules.Close()) }

// Pending implements box.Balancer.
func (b *boxBalancer) Pending(network string) bool {
	v := b.n.host.Source().View(network)
	if v == nil || b.Counters().Unsupported {
		return false
	}
	def := v.Def()
	return (def.Subnet4.IsValid() || def.Subnet6.IsValid()) && !b.Working(network) && !standsAgainst(b.Balancer, network)
}

// Driver implements box.Balancer.
func (b *boxBalancer) Driver() string { return b.Counters().Driver }

// Pools implements box.Balancer.
func (b *boxBalancer) Pools() []netip.Prefix {
	return slices.SortedFunc(maps.Keys(b.Balancer.Pools()), netip.Prefix.Compare)
}

// Changes implements box.Balancer.
func (b *boxBalancer) Changes() <-chan struct{} { return b.changes }

// Deaf implements box.Balancer.
func (b *boxBalancer) Deaf() bool { return b.rules.Err() != nil }

// Table implements box.Balancer.
func (b *boxBalancer) Table(ctx context.Context) (control.LBTable, error) {
	t, err := b.n.lbTable(ctx, b.Balancer, "")
	if errors.Is(err, lb.ErrStopped) {
		return control.LBTable{Driver: "none", Why: "the sandbox ends", Services: []control.LBService{}}, nil
	}
	return t, err
}

// Problems implements box.Balancer.
func (b *boxBalancer) Problems() (out []string) {
	c := b.Counters()
	if c.Driver == "" && c.Unsupported && b.n.cfg.LB != "none" {
		out = append(out, "no load balancer in it: vip services are answered with their tasks; meshctl sandbox inspect "+
			"says why")
	}
	if c.LastError != "" {
		out = append(out, "load balancer: "+c.LastError)
	}
	if c.Waiting > 0 {
		out = append(out, fmt.Sprintf("load balancer: %d services refuse connections, since all of them together have too "+
			"many ports and backends", c.Waiting))
	}
	return append(out, refusals(b.Balancer, "")...)
}
