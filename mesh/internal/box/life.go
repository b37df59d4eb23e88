package box

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"meshd/lb/hostcheck"
	"meshd/mesh/internal/notice"
)

// The times of a sandbox's life.
const (
	startLimit = 5 * time.Second  // to wait for the balancer before names are answered without it
	tickEvery  = time.Second      // between looks at whether the namespace exists
	endLimit   = 10 * time.Second // for taking a sandbox down
	dnsLimit   = time.Second      // for the questions in hand at its end
	// Ticks between looks at the addresses, and at the redirect of port 53 if the kernel
	// does not tell of its removal; between looks at the redirect in any case; and between
	// looks at resolv.conf, each a process of its own.
	verifyTicks = 5
	auditTicks  = 30
	confTicks   = 300
)

// endReason says why a sandbox is taken down.
type endReason int

const (
	endNone     endReason = iota // it is not: meshd stops, and the next life goes on
	endDetached                  // somebody asked for it
	endLost                      // its namespace or process has ended
	endUndone                    // it could not be attached fully
)

// Sandbox is one container. run is its goroutine and alone changes what is in the
// namespace; the other methods are safe for concurrent use.
type Sandbox struct {
	// What it is. Fixed.

	m        *Manager     // that holds it
	log      *slog.Logger // with its name
	id, name string       // as in its record
	ns       Namespace    // closed by run, or by discard
	balancer Balancer     // of the namespace
	holder   Holder       // of the namespace's load balancing

	// Its parts, each with its own rules of use.

	record record       // what sandboxes.json holds of it
	names  nameServer   // answers names in it
	former former       // the name server that it had before
	notes  notice.Board // what does not work

	// What is asked of run, and how far it is.

	stops    chan endReason             // capacity 1: to take it down
	looks    chan chan *hostcheck.Facts // to look into the namespace
	ready    chan struct{}              // closed when names and VIPs work, or will not soon
	ended    chan struct{}              // closed when run has returned
	balances atomic.Bool                // the balancer works, or will not soon
	left     []string                   // what could not be taken down; for readers after ended
}

// newSandbox makes a sandbox of a namespace, which its run will close. kept says that it
// is in sandboxes.json.
func (m *Manager) newSandbox(s Saved, ns Namespace, kept bool) (b *Sandbox, err error) {
	b = &Sandbox{
		m: m, log: m.log.With("sandbox", s.Name), id: s.ID, name: s.Name, ns: ns,
		holder: m.cfg.Balancing.Hold(ns.Path()), record: record{save: m.Save, saved: s, kept: kept},
		stops: make(chan endReason, 1), looks: make(chan chan *hostcheck.Facts),
		ready: make(chan struct{}), ended: make(chan struct{}),
	}
	b.names.b = b
	b.balancer, err = m.cfg.Balancing.Make(b.namespaced(&s))
	return b, err
}

// namespaced says for which namespace a balancer is to be.
func (b *Sandbox) namespaced(s *Saved) Namespaced {
	return Namespaced{
		Name: s.Name, Path: b.ns.Path(), Networks: s.Networks, Addresses: s.Addresses, MayProgram: b.mayProgram,
		Log: b.log,
	}
}

// Name returns the name of the sandbox.
func (b *Sandbox) Name() string { return b.name }

// Addresses returns the addresses of the container.
func (b *Sandbox) Addresses() []netip.Addr { return b.record.load().Addresses }

// discard closes a namespace that run never served, and lets go whoever waits for its
// end.
func (b *Sandbox) discard() error {
	b.record.remove()
	close(b.ended)
	return errors.Join(b.balancer.Close(), b.holder.Release(), b.ns.Close())
}

// mayProgram takes the namespace's load balancing, or says whose it is (L10).
func (b *Sandbox) mayProgram() error {
	if err := b.holder.Take(); err != nil {
		return fmt.Errorf("%w; detach the container there and restart meshd, or detach it here", err)
	}
	return nil
}

// stop asks run to take the sandbox down. The first reason counts.
func (b *Sandbox) stop(why endReason) {
	select {
	case b.stops <- why:
	default:
	}
}

// run serves the sandbox until it ends, and takes it down; if only meshd stops, it
// lets go of it.
func (b *Sandbox) run(ctx context.Context) {
	defer close(b.ended)
	why, detail := endDetached, ""
	if !b.record.load().Ending { // else a crash came before the end of its end
		why, detail = b.serve(ctx)
	}
	if why != endNone {
		b.takeDown(why, detail)
	}
	b.m.logError(b.name, "network namespace not closed", errors.Join(b.holder.Release(), b.ns.Close()))
}

// serve runs the balancer and the name server, in this order (L2). In a sandbox that
// an earlier life served, the kernel has the VIPs already: names are answered at once.
func (b *Sandbox) serve(ctx context.Context) (endReason, string) {
	defer b.balancer.Start(ctx)()
	before := b.record.isKept()
	if before {
		b.names.ensure()
	}
	b.awaitBalancer(ctx)
	b.balances.Store(true)
	if !before {
		b.names.ensure()
	}
	if before {
		b.ensureResolvConf(ctx) // a crash may have come before it
	}
	close(b.ready)
	why, detail := b.watch(ctx)
	b.names.close()
	return why, detail
}

// vipsUsable reports whether the VIPs of a network work in the sandbox (R5).
func (b *Sandbox) vipsUsable(network string) bool {
	return !b.balances.Load() || b.balancer.Working(network)
}

// awaitBalancer waits until the VIPs of the sandbox's networks work, or cannot.
func (b *Sandbox) awaitBalancer(ctx context.Context) {
	wait, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	networks := b.record.load().Networks
	for slices.ContainsFunc(networks, b.balancer.Pending) {
		select {
		case <-tick.C:
		case <-wait.Done():
			return
		}
	}
}

// watch returns when the sandbox is to end, with the reason for people.
func (b *Sandbox) watch(ctx context.Context) (endReason, string) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for i := 1; ; {
		select {
		case <-ctx.Done():
			return endNone, ""
		case why := <-b.stops:
			return why, ""
		case <-b.ns.Died():
			return endLost, "process " + strconv.Itoa(b.record.load().PID) + " has ended"
		case <-b.balancer.Changes():
			b.names.rulesChanged()
			continue
		case <-b.names.due:
			b.names.check()
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
		if i%verifyTicks == 0 {
			if b.balancer.Deaf() || i%auditTicks == 0 || !b.names.answering() {
				b.names.ensure()
			}
			b.report("addresses", b.sameAddresses())
		}
		if i%confTicks == 0 {
			b.ensureResolvConf(ctx)
		}
	}
}

// sameAddresses reports that the container has other addresses than it had when
// it was attached.
func (b *Sandbox) sameAddresses() error {
	now, err := b.ns.Addrs()
	was := b.Addresses()
	if err != nil || slices.Equal(now, was) {
		return err
	}
	return fmt.Errorf("they are %v now, and were %v: detach the sandbox and attach it again", now, was)
}

// report shows what does not work in the sandbox; a nil err ends that.
func (b *Sandbox) report(what string, err error) {
	text := ""
	if err != nil {
		text = what + ": " + err.Error()
		if text != b.notes.Get(what) {
			b.log.Warn("something of a sandbox does not work", "what", what, "error", err)
		}
	}
	b.notes.Set(what, text)
}
