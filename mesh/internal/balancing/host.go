// Package balancing serves the VIPs of a node: it owns the load balancer of the host and
// those of its sandboxes, with what watches their network namespaces. Package lb decides what the kernel should hold,
// and its drivers put it there; this package makes them, says which one it is and why,
// and tells people what does not work (L4, L7, L9, L10, L15).
//
// It knows neither gossip nor the registry: tasks and networks come from views.
package balancing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/lb"
	"meshd/lb/holder"
	"meshd/lb/hostfacts"
	"meshd/lb/hostwatch"
	"meshd/lb/nftconn"
	"meshd/lb/rulewatch"
	"meshd/lb/sysctl"
	"meshd/mesh/control"
	"meshd/mesh/internal/hostchanges"
	"meshd/state"
)

// Config configures a Host.
type Config struct {
	// What the configuration of the node says.

	Self          state.NodeID   // the node's name
	Choice        string         // of drivers: auto, ipvs, nft or none
	Forwarding    string         // who makes the host forward packets: auto, devices or off
	AllowLoopback bool           // whether tasks at loopback addresses are backends
	Verify        time.Duration  // between comparisons with the kernel; 0: as lb has it
	PoolRanges    []netip.Prefix // within which this host takes VIP pools (L9)
	Addresses     []netip.Addr   // of this host, as others see it, best first: backends answer to one of them

	// What it talks to.

	Source  state.Source                                    // views of networks
	Changes *hostchanges.Record                             // of the host
	Known   func(ctx context.Context, network string) error // refuses a network that is not known
	Emit    func(events ...control.Event)                   // to those who watch
	Log     *slog.Logger                                    // for what no caller is there to hear
}

// Host is the load balancing of a node: its host's balancer and those of its sandboxes.
// Make it with Open, run it with Run or release it with Close. Its other methods are
// safe for concurrent use.
type Host struct {
	cfg Config       // fixed
	log *slog.Logger // of cfg

	// Of the host's own namespace.

	balancer *lb.Balancer        // programs the kernel
	facts    *hostwatch.Watcher  // of addresses and routes
	rules    *rulewatch.Watcher  // of the nftables ruleset
	holder   *holder.Holder      // of the namespace's load balancing
	changes  *hostchanges.Record // of the host's settings

	// Of all namespaces.

	balancers balancers  // by sandbox; the host's is ""
	budget    *lb.Budget // of what others write to rules in sandboxes
}

// Hosting says what a driver may do to its host, and what it reports to.
type Hosting struct {
	Forward  bool                // make the host forward packets
	OnSysctl func(sysctl.Change) // called with each setting that was changed; may be nil
	Rules    nftconn.Listener    // of changes of the ruleset; may be nil
}

// Open opens the host's load balancer, and what watches the host for it. It changes
// nothing.
func Open(cfg Config) (*Host, error) {
	h := &Host{cfg: cfg, log: cfg.Log, changes: cfg.Changes, holder: holder.New(""), budget: newBudget()}
	h.rules = watchRules("", h.log)
	if err := h.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("lb: %w", err), h.Close())
	}
	return h, nil
}

func (h *Host) open() error {
	ds, err := Drivers(h.cfg.Choice, "", Hosting{
		Forward: h.cfg.Forwarding == "auto", OnSysctl: h.changes.Sysctl, Rules: h.rules,
	}, h.log)
	if err != nil {
		return err
	}
	old, err := former(h.leftBehind(), "", Hosting{Rules: h.rules}, h.log)
	if err != nil {
		return err
	}
	h.facts = h.watchHost("", h.log)
	cfg := h.balancerConfig("")
	cfg.Node = lb.Node{Self: h.cfg.Self, AllowLoopback: h.cfg.AllowLoopback}
	if a := h.sourceFor(); a.Is4() {
		cfg.Node.Src4 = a
	} else {
		cfg.Node.Src6 = a
	}
	cfg.Former, cfg.OnDriver, cfg.Drivers = old, h.programmed, ds
	cfg.Facts, cfg.RoutesChanged, cfg.MayProgram = h.facts, h.facts.RoutesChanged(), h.mayProgram
	hear(&cfg, h.rules)
	cfg.TriggerBudget = newBudget()
	if h.balancer, err = lb.New(cfg); err == nil {
		h.balancers.add("", Balanced{h.balancer, h.facts, h.rules})
	}
	return err
}

// Close releases what Open opened, if Run was not called.
func (h *Host) Close() error { return h.rules.Close() }

// Run balances until ctx ends. It leaves the kernel as it is.
func (h *Host) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.facts.Run(ctx) })
	g.Go(func() error { return h.rules.Run(ctx) })
	g.Go(func() error { return h.balancer.Run(ctx) })
	return g.Wait()
}

// Release lets another process program the host. It comes after Run.
func (h *Host) Release() error { return h.holder.Release() }

// Require sets the addresses that must stay reachable: no pool over them is served.
func (h *Host) Require(points []hostfacts.Point) { h.facts.Require(h.cfg.PoolRanges, points) }

// Driver returns the name of what programs the host's load balancing, or "".
func (h *Host) Driver() string { return h.balancer.Counters().Driver }

// Ready reports whether the host's balancer knows its pools.
func (h *Host) Ready() bool { return h.balancer.Counters().Ready }

// Pools returns the pools that the host serves.
func (h *Host) Pools() map[netip.Prefix]lb.Pool { return h.balancer.Pools() }

// Working reports whether the VIPs of a network work on the host.
func (h *Host) Working(network string) bool { return h.balancer.Working(network) }

// Applied reports whether the host's balancer has what the views of a network say.
func (h *Host) Applied(ctx context.Context, network string) (bool, error) {
	return h.balancer.Applied(ctx, network)
}

// Names returns the names of the sandboxes with a load balancer, sorted; the host's, "",
// is first.
func (h *Host) Names() []string { return h.balancers.names() }

// Balancer returns the balancer of a sandbox, or the host's for "".
func (h *Host) Balancer(sandbox string) (b Balanced, ok bool) { return h.balancers.watched(sandbox) }

// Hold keeps all kernels as they are until the process ends: the node leaves.
func (h *Host) Hold(ctx context.Context) {
	for _, name := range h.balancers.names() {
		if b := h.balancers.get(name); b != nil {
			if err := b.Hold(ctx); err != nil && !errors.Is(err, lb.ErrStopped) {
				h.log.Warn("leaving: the load balancer changes on", "sandbox", name, "error", err)
			}
		}
	}
}

// balancerConfig returns the settings that the host's balancer and those of
// sandboxes share.
func (h *Host) balancerConfig(sandbox string) lb.Config {
	log := h.log
	if sandbox != "" {
		log = log.With("sandbox", sandbox)
	}
	return lb.Config{
		Source: h.cfg.Source, Log: log, Verify: h.cfg.Verify,
		OnDrift: func(r lb.Report) { h.cfg.Emit(driftEvent(sandbox, r)) },
		OnRefused: func(network string, against []hostfacts.Conflict) {
			h.cfg.Emit(refusedEvent(sandbox, network, against))
		},
	}
}

// leftBehind returns the choice of drivers that decides which ones former lives
// may have used: with none, only those of this data directory's own, since
// another meshd may have the host.
func (h *Host) leftBehind() string {
	if h.cfg.Choice == "none" && h.changes.Driver() == "" {
		return "auto"
	}
	return h.cfg.Choice
}

// programmed records what programs the host. When nothing does, another process may.
func (h *Host) programmed(driver string) {
	h.changes.SetDriver(driver)
	if driver == "" {
		if err := h.holder.Release(); err != nil {
			h.log.Warn("the network namespace stays taken", "error", err)
		}
	}
}

// mayProgram takes the host's load balancing, or says whose it is (L10).
func (h *Host) mayProgram() error {
	if err := h.holder.Take(); err != nil {
		return fmt.Errorf("%w; stop that one and restart this meshd, or start this one with --lb none", err)
	}
	return nil
}

// VIPsUsable reports whether this kernel serves VIPs (R5).
func (h *Host) VIPsUsable() bool { return h.Driver() != "" }

// sourceFor returns the address of the host that backends answer to: the first one that
// the host has, else the choice is the kernel's.
func (h *Host) sourceFor() netip.Addr {
	facts, _ := h.facts.Facts()
	for _, a := range h.cfg.Addresses {
		if facts.Unknown != "" || facts.HasAddress(a) {
			return a
		}
	}
	return netip.Addr{}
}
