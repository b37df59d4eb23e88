package mesh

import (
	"fmt"
	"net/netip"

	"meshd/lb"
	"meshd/lb/holder"
	"meshd/lb/hostread"
	"meshd/mesh/control"
	"meshd/mesh/lookout"
	"meshd/state"
)

// openBalancer opens the host's load balancer, and what watches the host for it.
func (n *Node) openBalancer() (err error) {
	n.rules = n.watchRules("", n.log)
	ds, err := drivers(n.cfg.LB, "", hosting{
		forward: n.cfg.Forwarding == "auto", onSysctl: n.sysctls.Sysctl,
		rules: n.rules,
	}, n.log)
	if err != nil {
		return fmt.Errorf("lb: %w", err)
	}
	old, err := former(n.leftBehind(), "", hosting{rules: n.rules}, n.log)
	if err != nil {
		return fmt.Errorf("lb: %w", err)
	}
	node := lb.Node{Self: state.NodeID(n.cfg.Node), AllowLoopback: n.cfg.AllowLoopbackTasks}
	cfg := n.balancerConfig("")
	n.watch = n.watchHost("", n.log)
	n.lookout = lookout.New(lookout.Config{
		Host: &hostView{n: n}, Reader: hostread.Open(), Emit: func(e control.Event) { n.emit(e) }, Log: n.log,
	})
	if a := n.sourceFor(); a.Is4() {
		node.Src4 = a
	} else {
		node.Src6 = a
	}
	n.holder = holder.New("")
	cfg.Former, cfg.OnDriver = old, n.programmed
	cfg.Drivers, cfg.Node, cfg.Facts, cfg.RoutesChanged, cfg.MayProgram = ds, node, n.watch, n.watch.RoutesChanged(), n.mayProgram
	hear(&cfg, n.rules)
	cfg.TriggerBudget = prompts()
	if n.balancer, err = lb.New(cfg); err == nil {
		n.balancers.add("", balanced{n.balancer, n.watch, n.rules})
	}
	return err
}

// leftBehind returns the choice of drivers that decides which ones former lives
// may have used: with none, only those of this data directory's own, since
// another meshd may have the host.
func (n *Node) leftBehind() string {
	if n.cfg.LB == "none" && n.sysctls.Driver() == "" {
		return "auto"
	}
	return n.cfg.LB
}

// programmed notes what programs the host's load balancing, and lets go of it
// when nothing does.
func (n *Node) programmed(driver string) {
	n.sysctls.SetDriver(driver)
	if driver == "" {
		if err := n.holder.Release(); err != nil {
			n.log.Warn("the network namespace stays taken", "err", err)
		}
	}
}

// mayProgram takes the host's load balancing, or says whose it is (L10).
func (n *Node) mayProgram() error {
	if err := n.holder.Take(); err != nil {
		return fmt.Errorf("%w; stop that one and restart this meshd, or start this one with --lb none", err)
	}
	return nil
}

// vipsUsable reports whether this kernel serves VIPs (R5).
func (n *Node) vipsUsable() bool { return n.balancer.Counters().Driver != "" }

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
