package mesh

import (
	"log/slog"
	"time"

	"meshd/lb"
	"meshd/resolver"
)

// redirectWatch says when to look at the redirect of port 53 because others wrote
// to the namespace's rules: at once, and then as the budget of all sandboxes
// allows. It belongs to one goroutine.
type redirectWatch struct {
	heard  <-chan struct{}
	budget *lb.Budget
	due    <-chan time.Time // nil: nothing was heard
	next   time.Time        // no look before

	told   time.Time // in the log, that somebody removed it
	untold int       // times since then
}

// prompt notes that something was heard.
func (w *redirectWatch) prompt() {
	if w.due == nil {
		w.due = time.After(time.Until(w.next))
	}
}

// prompted looks at the redirect because of what was heard.
func (b *box) prompted() {
	w := &b.redirect
	w.due = nil
	rest := w.budget.Spend(func() {
		if b.answering() && b.ensureDNS() {
			b.m.redirectsPrompted.Add(1)
		}
	})
	w.next = time.Now().Add(min(rest, boxAudit*boxTick))
}

// answering reports whether the name server has been opened.
func (b *box) answering() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bound != nil
}

// ensureDNS makes the name server answer on port 53, now or again: a container
// may flush the rules of its namespace. It reports whether somebody had.
func (b *box) ensureDNS() (removed bool) {
	b.mu.Lock()
	bound, redirected, port := b.bound, b.redirected, b.saved.Port
	b.mu.Unlock()
	if bound == nil {
		b.note("dns", b.openDNS(port))
		return false
	}
	if !redirected {
		return false
	}
	there, err := b.ns.Redirected(port)
	if err == nil && !there {
		removed = true
		if err = b.ns.Redirect(port); err == nil {
			b.m.redirects.Add(1)
		}
		if times := b.redirect.removed(time.Now()); times > 0 {
			b.log.Warn("somebody removed the rules that lead port 53 to the name server; they are made again",
				slog.Int("times", times))
		}
	}
	b.note("dns", err)
	return removed
}

// redirectTold is the time between two lines in the log about a redirect that
// somebody removes again and again.
const redirectTold = 5 * time.Minute

// removed notes that somebody removed it. It returns how often that happened
// since it was told last; 0: it need not be told now.
func (w *redirectWatch) removed(now time.Time) (times int) {
	w.untold++
	if now.Sub(w.told) < redirectTold {
		return 0
	}
	times, w.told, w.untold = w.untold, now, 0
	return times
}

// openDNS opens the name server on the port that it had, or any other.
func (b *box) openDNS(port uint16) error {
	sockets, err := b.ns.Listen(port)
	if err != nil {
		return err
	}
	if !sockets.Redirected {
		b.log.Warn("no nftables here: the name server takes port 53 itself, and the container can have none on every address")
	}
	bound, err := b.m.node.dns.Listen(resolver.Listener{
		Networks: b.saved.Networks, VIPsUsable: b.vipsUsable, Client: b.saved.Addresses[0],
		Packet: sockets.Packet, Stream: sockets.Stream,
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.bound, b.redirected = bound, sockets.Redirected
	b.mu.Unlock()
	return b.change(func(s *savedSandbox) { s.Port = sockets.Port })
}
