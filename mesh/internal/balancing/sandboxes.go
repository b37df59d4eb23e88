package balancing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/lb"
	"meshd/lb/hostwatch"
	"meshd/lb/rulewatch"
	"meshd/mesh/control"
)

// Namespace is the network namespace of a sandbox.
type Namespace struct {
	Name       string       // of the sandbox
	Path       string       // of the namespace
	Networks   []string     // that are served in it
	Addresses  []netip.Addr // of the container
	MayProgram func() error // takes the namespace's load balancing, or says whose it is (L10)
	Log        *slog.Logger // of the sandbox
}

// Sandbox is the load balancer of one sandbox, with what watches its namespace. It
// watches from the start: Close releases one that is not started. Its other methods are
// safe for concurrent use.
type Sandbox struct {
	*lb.Balancer
	h       *Host
	name    string
	facts   *hostwatch.Watcher // of addresses and routes
	rules   *rulewatch.Watcher // of the nftables ruleset
	changes <-chan struct{}    // of the ruleset, by others
}

// Make makes the load balancer of a sandbox (L4).
func (h *Host) Make(at Namespace) (*Sandbox, error) {
	s := &Sandbox{h: h, name: at.Name, rules: watchRules(at.Path, at.Log), facts: h.watchHost(at.Path, at.Log)}
	s.changes = s.rules.Subscribe()
	cfg := h.balancerConfig(at.Name)
	err := h.configure(&cfg, at, s)
	if err == nil {
		s.Balancer, err = lb.New(cfg)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// configure says what a sandbox's balancer is to be.
func (h *Host) configure(cfg *lb.Config, at Namespace, s *Sandbox) (err error) {
	owned := Hosting{Rules: s.rules}
	choice := h.sandboxChoice(h.cfg.Choice)
	if cfg.Drivers, err = Drivers(choice, at.Path, owned, at.Log); err != nil {
		return err
	}
	if choice == "none" {
		choice = h.leftBehind()
	}
	if cfg.Former, err = former(choice, at.Path, owned, at.Log); err != nil {
		return err
	}
	cfg.Facts, cfg.RoutesChanged, cfg.MayProgram = s.facts, s.facts.RoutesChanged(), at.MayProgram
	hear(cfg, s.rules)
	cfg.TriggerBudget = h.budget
	cfg.Node = lb.Node{
		Src4: firstOf(at.Addresses, true), Src6: firstOf(at.Addresses, false),
		Self: h.cfg.Self, AllowLoopback: h.cfg.AllowLoopback,
	}
	cfg.Only = func(network string) bool { return slices.Contains(at.Networks, network) }
	return nil
}

// firstOf returns the first address of a family, or the zero Addr.
func firstOf(all []netip.Addr, want4 bool) netip.Addr {
	for _, a := range all {
		if a.Is4() == want4 {
			return a
		}
	}
	return netip.Addr{}
}

// sandboxChoice returns the choice of drivers for a sandbox: what auto comes to on the
// host, once that is known, since the kernel is the same.
func (h *Host) sandboxChoice(choice string) string {
	if choice == "auto" && h.cfg.Choice == "auto" && h.Driver() == "nft" {
		return "nft"
	}
	return choice
}

// RemoveAll removes what any driver has made in a namespace. It returns what failed, by
// driver; "" is the making of drivers.
func (h *Host) RemoveAll(ctx context.Context, at Namespace) map[string]error {
	failed := map[string]error{}
	ds, err := Drivers(h.sandboxChoice("auto"), at.Path, Hosting{}, at.Log)
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

// Spend runs f, which looks at the rules of a sandbox because others wrote to them. It
// returns how long the sandbox has to wait before the next time (L15).
func (h *Host) Spend(f func()) (rest time.Duration) { return h.budget.Spend(f) }

// Start begins to balance. stop ends it and returns when all of it has ended.
func (s *Sandbox) Start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	s.h.balancers.add(s.name, Balanced{s.Balancer, s.facts, s.rules})
	g.Go(func() error { return s.facts.Run(ctx) })
	g.Go(func() error { return s.rules.Run(ctx) })
	g.Go(func() error { return s.Run(ctx) })
	return func() {
		s.h.balancers.drop(s.name)
		cancel()
		_ = g.Wait()
	}
}

// Close releases a balancer that was not started.
func (s *Sandbox) Close() error { return errors.Join(s.facts.Close(), s.rules.Close()) }

// Pending reports whether the VIPs of a network do not work yet, and may soon.
func (s *Sandbox) Pending(network string) bool {
	v := s.h.cfg.Source.View(network)
	if v == nil || s.Counters().Unsupported {
		return false
	}
	def := v.Def()
	return (def.Subnet4.IsValid() || def.Subnet6.IsValid()) && !s.Working(network) && !isRefused(s.Balancer, network)
}

// Driver returns the name of what programs the kernel, or "".
func (s *Sandbox) Driver() string { return s.Counters().Driver }

// Pools returns the pools that are served, sorted.
func (s *Sandbox) Pools() []netip.Prefix {
	return slices.SortedFunc(maps.Keys(s.Balancer.Pools()), netip.Prefix.Compare)
}

// Changes receives when others have written to the namespace's rules.
func (s *Sandbox) Changes() <-chan struct{} { return s.changes }

// Deaf reports that the kernel does not tell of changes.
func (s *Sandbox) Deaf() bool { return s.rules.Err() != nil }

// Table describes what should be balanced beside what is.
func (s *Sandbox) Table(ctx context.Context) (control.LBTable, error) {
	t, err := s.h.table(ctx, s.Balancer, "")
	if errors.Is(err, lb.ErrStopped) {
		return control.LBTable{Driver: "none", Why: "the sandbox ends", Services: []control.LBService{}}, nil
	}
	return t, err
}

// Problems says, for people, what does not work.
func (s *Sandbox) Problems() (out []string) {
	c := s.Counters()
	if c.Driver == "" && c.Unsupported && s.h.cfg.Choice != "none" {
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
	return append(out, refusals(s.Balancer, "")...)
}
