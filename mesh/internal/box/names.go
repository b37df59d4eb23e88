package box

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// nameServer answers names in a sandbox, on port 53 of sandbox.ServerAddr. The
// container may flush the rules of its namespace, which removes the redirect of port
// 53: it is made again when the kernel tells of it, as often as the budget of all
// sandboxes allows (L15). Only answering and port are safe for concurrent use, the
// other methods belong to the sandbox's run.
type nameServer struct {
	b *Sandbox

	// What was opened.

	mu         sync.Mutex // guards what follows
	server     Server     // nil: none yet
	redirected bool       // port 53 leads to it

	// When to look at the redirect. These belong to run.

	due       <-chan time.Time // nil: others have not written to the rules
	next      time.Time        // no look before
	loggedAt  time.Time        // when the log last told that others removed it
	notLogged int              // times that they did since then
}

// rulesChanged says that others have written to the namespace's rules.
func (n *nameServer) rulesChanged() {
	if n.due == nil {
		n.due = time.After(time.Until(n.next))
	}
}

// check looks at the redirect because others have written to the rules.
func (n *nameServer) check() {
	n.due = nil
	rest := n.b.m.cfg.Balancing.Spend(func() {
		if n.answering() && n.ensure() {
			n.b.m.redirectsHeard.Add(1)
		}
	})
	n.next = time.Now().Add(min(rest, auditTicks*tickEvery))
}

// answering reports whether the name server has been opened.
func (n *nameServer) answering() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server != nil
}

// port returns the port that the server listens on, and whether port 53 leads there.
func (n *nameServer) port() (number uint16, redirected bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.record.load().Port, n.redirected
}

// ensure makes the name server answer on port 53, now or again. It reports whether
// others had removed the redirect.
func (n *nameServer) ensure() (removed bool) {
	port, redirected := n.port()
	if !n.answering() {
		n.b.report("dns", n.open(port))
		return false
	}
	if !redirected {
		return false
	}
	there, err := n.b.ns.Redirected(port)
	if err == nil && !there {
		removed = true
		if err = n.b.ns.Redirect(port); err == nil {
			n.b.m.redirects.Add(1)
		}
		if times := n.countRemoval(time.Now()); times > 0 {
			n.b.log.Warn("somebody removed the rules that lead port 53 to the name server; they are made again",
				slog.Int("times", times))
		}
	}
	n.b.report("dns", err)
	return removed
}

// removalsEvery is the time between two lines in the log about a redirect that others
// remove again and again.
const removalsEvery = 5 * time.Minute

// countRemoval counts that others removed the redirect. It returns how often they did
// since the log told of it, or 0 if the log need not tell now.
func (n *nameServer) countRemoval(now time.Time) (times int) {
	n.notLogged++
	if now.Sub(n.loggedAt) < removalsEvery {
		return 0
	}
	times, n.loggedAt, n.notLogged = n.notLogged, now, 0
	return times
}

// open opens the name server on the port that it had, or any other.
func (n *nameServer) open(port uint16) error {
	b := n.b
	sockets, err := b.ns.Listen(port)
	if err != nil {
		return err
	}
	if !sockets.Redirected {
		b.log.Warn("no nftables here: the name server takes port 53 itself, and the container can have none on every address")
	}
	s := b.record.load()
	server, err := b.m.cfg.Names.Listen(Listener{
		Networks: s.Networks, VIPsUsable: b.vipsUsable, Client: s.Addresses[0], Packet: sockets.Packet,
		Stream: sockets.Stream, Bare: b.ask,
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.server, n.redirected = server, sockets.Redirected
	n.mu.Unlock()
	return b.record.change(func(s *Saved) { s.Port = sockets.Port })
}

// close closes the name server. Questions that are not answered within dnsLimit are
// lost with the container that asked them.
func (n *nameServer) close() {
	n.mu.Lock()
	server := n.server
	n.server = nil
	n.mu.Unlock()
	if server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dnsLimit)
	defer cancel()
	_ = server.Close(ctx)
}
