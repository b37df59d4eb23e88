package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/lb"
	"meshd/lb/holder"
	"meshd/lb/hostcheck"
	"meshd/lb/hostwatch"
	"meshd/lb/rulewatch"
	"meshd/mesh/notice"
	"meshd/mesh/sandbox"
	"meshd/resolver"
	"meshd/state"
)

// The times of a sandbox's life.
const (
	boxStart = 5 * time.Second // to wait for the balancer before names are answered without it
	boxTick  = time.Second     // between looks at whether the namespace is there
	// ticks between looks at the addresses, and at the redirect of port 53 if its end is not heard
	boxVerify  = 5
	boxAudit   = 30               // ticks between looks at it even so
	boxConf    = 300              // ticks between looks at resolv.conf, each a process of its own
	boxEnd     = 10 * time.Second // for taking one down
	boxLastDNS = time.Second      // for the questions in hand at its end
)

// endReason says why a sandbox is taken down.
type endReason int

const (
	endNone     endReason = iota // it is not: meshd stops, and the next life goes on
	endDetached                  // somebody asked for it
	endLost                      // its namespace or process has ended
	endUndone                    // it could not be attached fully
)

// box is one sandbox. run is its goroutine, and alone changes what is in the
// namespace; the other methods are safe for concurrent use.
type box struct {
	m        *sandboxes
	log      *slog.Logger
	id, name string
	ns       *sandbox.Namespace
	balancer *lb.Balancer
	facts    *hostwatch.Watcher // of the namespace's addresses and routes
	rules    *rulewatch.Watcher // of its nftables ruleset
	redirect redirectWatch      // belongs to run
	holder   *holder.Holder     // of the namespace's load balancing
	stops    chan endReason     // capacity 1
	looks    chan chan *hostcheck.Facts
	ready    chan struct{} // closed when names and VIPs work, or will not soon
	ended    chan struct{} // closed when run has returned
	settled  atomic.Bool   // the balancer works, or will not soon
	notes    notice.Board  // what does not work
	left     []string      // what could not be taken down; for readers after ended

	mu         sync.Mutex // guards what follows
	saved      savedSandbox
	added      []string // networks in which this life has registered its task
	begun      bool     // the namespace may have been changed
	kept       bool     // is, or is to be, in sandboxes.json as one to be served
	down       bool     // taken down
	bound      *resolver.Bound
	redirected bool
}

// newBox makes a sandbox of a namespace, of which its run will let go. kept says
// that it is in sandboxes.json.
func (m *sandboxes) newBox(s savedSandbox, ns *sandbox.Namespace, kept bool) (*box, error) {
	b := &box{
		m: m, log: m.log.With("sandbox", s.Name), id: s.ID, name: s.Name, ns: ns, saved: s, kept: kept,
		holder: holder.New(ns.Path()), stops: make(chan endReason, 1), looks: make(chan chan *hostcheck.Facts),
		ready: make(chan struct{}), ended: make(chan struct{}),
	}
	b.rules, b.facts = m.node.watchRules(ns.Path(), b.log), m.node.watchHost(ns.Path(), b.log)
	b.redirect = redirectWatch{heard: b.rules.Subscribe(), budget: m.prompts}
	cfg := m.node.balancerConfig(s.Name)
	err := b.configure(&cfg, &s)
	if err == nil {
		b.balancer, err = lb.New(cfg)
	}
	if err != nil {
		err = errors.Join(err, b.facts.Close(), b.rules.Close())
	}
	return b, err
}

// configure says what the sandbox's balancer is to be.
func (b *box) configure(cfg *lb.Config, s *savedSandbox) (err error) {
	n, path, owned := b.m.node, b.ns.Path(), hosting{rules: b.rules}
	choice := n.sandboxDriver(n.cfg.LB)
	if cfg.Drivers, err = drivers(choice, path, owned, b.log); err != nil {
		return err
	}
	if choice == "none" {
		choice = n.leftBehind()
	}
	if cfg.Former, err = former(choice, path, owned, b.log); err != nil {
		return err
	}
	cfg.Facts, cfg.RoutesChanged, cfg.MayProgram = b.facts, b.facts.RoutesChanged(), b.mayProgram
	hear(cfg, b.rules)
	cfg.TriggerBudget = b.m.prompts
	cfg.Node = lb.Node{
		Src4: pick(s.Addresses, true), Src6: pick(s.Addresses, false),
		Self: state.NodeID(n.cfg.Node), AllowLoopback: n.cfg.AllowLoopbackTasks,
	}
	networks := s.Networks
	cfg.Only = func(network string) bool { return slices.Contains(networks, network) }
	return nil
}

// discard lets go of a namespace that run never served, and of whoever waits
// for its end.
func (b *box) discard() error {
	b.mu.Lock()
	b.down = true
	b.mu.Unlock()
	close(b.ended)
	return errors.Join(b.facts.Close(), b.rules.Close(), b.holder.Release(), b.ns.Close())
}

// mayProgram takes the namespace's load balancing, or says whose it is (L10).
func (b *box) mayProgram() error {
	if err := b.holder.Take(); err != nil {
		return fmt.Errorf("%w; detach the container there and restart meshd, or detach it here", err)
	}
	return nil
}

// sandboxDriver returns the choice of drivers for a sandbox: what auto comes to
// on the host, once that is known, as the kernel is the same.
func (n *Node) sandboxDriver(choice string) string {
	if choice == "auto" && n.cfg.LB == "auto" && n.balancer.Counters().Driver == "nft" {
		return "nft"
	}
	return choice
}

// record returns what to write down, and whether to.
func (b *box) record() (savedSandbox, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.saved, b.kept
}

// file returns what sandboxes.json is to hold of it, and whether anything. One
// that is only being attached has no task yet, and is to be taken down, should
// this life end before.
func (b *box) file() (savedSandbox, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.saved
	if !b.kept {
		s.Ending, s.Service, s.Task = true, "", ""
	}
	return s, b.kept || b.begun
}

// begin writes down that the namespace is about to be changed.
func (b *box) begin() error {
	b.mu.Lock()
	b.begun = true
	b.mu.Unlock()
	return b.m.save()
}

// endLater leaves the end of a sandbox, of which only a part may be there, to the
// next life.
func (b *box) endLater() error {
	b.mu.Lock()
	b.kept, b.saved.Ending = true, true
	if len(b.added) == 0 { // a task of that id is somebody else's
		b.saved.Service, b.saved.Task = "", ""
	}
	b.mu.Unlock()
	return b.m.save()
}

// gone reports that the sandbox has been taken down.
func (b *box) gone() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down
}

// change changes the record, and writes it down if that is to be.
func (b *box) change(f func(s *savedSandbox)) error {
	b.mu.Lock()
	f(&b.saved)
	kept := b.kept
	b.mu.Unlock()
	if !kept {
		return nil
	}
	return b.m.save()
}

// keep writes the sandbox down for the first time.
func (b *box) keep(conf *sandbox.ResolvConf) error {
	b.mu.Lock()
	b.kept, b.saved.ResolvConf = true, conf
	b.mu.Unlock()
	return b.m.save()
}

// stop asks run to take the sandbox down. The first reason counts.
func (b *box) stop(why endReason) {
	select {
	case b.stops <- why:
	default:
	}
}

// run serves the sandbox until it ends, and takes it down; if only meshd
// stops, it lets go of it.
func (b *box) run(ctx context.Context) {
	defer close(b.ended)
	why, detail := endDetached, ""
	if s, _ := b.record(); !s.Ending { // else a crash came before the end of its end
		why, detail = b.serve(ctx)
	}
	if why != endNone {
		b.takeDown(why, detail)
	}
	b.m.noteErr(b.name, "network namespace not closed", errors.Join(b.holder.Release(), b.ns.Close()))
}

// serve runs the balancer and the name server, in this order (L2). Of a sandbox
// that an earlier life served, the kernel holds the VIPs already: names are
// answered at once.
func (b *box) serve(ctx context.Context) (endReason, string) {
	balance, stop := context.WithCancel(ctx)
	var g errgroup.Group
	defer func() { stop(); _ = g.Wait() }()
	b.m.node.balancers.add(b.name, b.balancer)
	defer b.m.node.balancers.drop(b.name)
	g.Go(func() error { return b.facts.Run(balance) })
	g.Go(func() error { return b.rules.Run(balance) })
	g.Go(func() error { return b.balancer.Run(balance) })
	_, before := b.record()
	if before {
		b.ensureDNS()
	}
	b.awaitBalancer(ctx)
	b.settled.Store(true)
	if !before {
		b.ensureDNS()
	}
	if before {
		b.ensureResolvConf(ctx) // a crash may have come before it
	}
	close(b.ready)
	why, detail := b.watch(ctx)
	b.closeDNS()
	return why, detail
}

// vipsUsable reports whether the VIPs of a network work in the sandbox (R5).
func (b *box) vipsUsable(network string) bool {
	return !b.settled.Load() || b.balancer.Working(network)
}

// awaitBalancer waits until the VIPs of its networks work, or cannot.
func (b *box) awaitBalancer(ctx context.Context) {
	wait, cancel := context.WithTimeout(ctx, boxStart)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		c := b.balancer.Counters()
		if c.Unsupported || !slices.ContainsFunc(b.saved.Networks, b.pending) {
			return
		}
		select {
		case <-tick.C:
		case <-wait.Done():
			return
		}
	}
}

// pending reports whether the VIPs of a network are still to be programmed.
func (b *box) pending(network string) bool {
	v := b.m.node.host.Source().View(network)
	if v == nil {
		return false
	}
	def := v.Def()
	return (def.Subnet4.IsValid() || def.Subnet6.IsValid()) && !b.balancer.Working(network) &&
		!standsAgainst(b.balancer, network)
}

// watch returns when the sandbox is to end, with the reason for people.
func (b *box) watch(ctx context.Context) (endReason, string) {
	tick := time.NewTicker(boxTick)
	defer tick.Stop()
	for i := 1; ; {
		select {
		case <-ctx.Done():
			return endNone, ""
		case why := <-b.stops:
			return why, ""
		case <-b.ns.Died():
			return endLost, "process " + strconv.Itoa(b.saved.PID) + " has ended"
		case <-b.redirect.heard:
			b.redirect.prompt()
			continue
		case <-b.redirect.due:
			b.prompted()
			continue
		case reply := <-b.looks:
			reply <- b.readInside()
			continue
		case <-tick.C:
			i++
		}
		if err := b.ns.Gone(); err != nil {
			return endLost, err.Error()
		}
		if i%boxVerify == 0 {
			if b.rules.Err() != nil || i%boxAudit == 0 || !b.answering() {
				b.ensureDNS()
			}
			b.note("addresses", b.sameAddresses())
		}
		if i%boxConf == 0 {
			b.ensureResolvConf(ctx)
		}
	}
}

// sameAddresses reports that the container has other addresses than it had when
// it was attached.
func (b *box) sameAddresses() error {
	now, err := b.ns.Addrs()
	if err != nil || slices.Equal(now, b.saved.Addresses) {
		return err
	}
	return fmt.Errorf("they are %v now, and were %v: detach the sandbox and attach it again", now, b.saved.Addresses)
}

// note keeps a trouble for people, or ends it.
func (b *box) note(what string, err error) {
	text := ""
	if err != nil {
		text = what + ": " + err.Error()
		if text != b.notes.Get(what) {
			b.log.Warn("sandbox", "what", what, "error", err)
		}
	}
	b.notes.Set(what, text)
}

func (b *box) closeDNS() {
	b.mu.Lock()
	bound := b.bound
	b.bound = nil
	b.mu.Unlock()
	if bound == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), boxLastDNS)
	defer cancel()
	_ = bound.Close(ctx) // questions that are not answered by now are lost with their askers
}
