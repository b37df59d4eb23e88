//go:build linux

package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// prober keeps resolving and connecting from one host.
type prober struct {
	*cluster
	from *member
	rng  *rand.Rand
}

// attempt is one question or request of a client.
type attempt struct {
	begin, end time.Time
	host       int
	what       string // for people
}

// tally counts what the clients met. It is safe for concurrent use.
type tally struct {
	mu          sync.Mutex // guards everything that follows
	attempts    int
	explained   map[string]int // by explanation
	unexplained []string
}

func (t *tally) count() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts++
}

// failed records a failed attempt; why explains it, or is "".
func (t *tally) failed(a attempt, why string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if why != "" {
		t.explained[why]++
		return
	}
	t.unexplained = append(t.unexplained, fmt.Sprintf("%s from %s %s (after %v): %v",
		a.begin.Format("15:04:05.000"), hostName(a.host), a.what, a.end.Sub(a.begin).Round(time.Millisecond), err))
}

// run probes until ctx ends.
func (p *prober) run(ctx context.Context) {
	for {
		select {
		case <-time.After(time.Duration(40+p.rng.IntN(80)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		service := []string{web, api}[p.rng.IntN(2)]
		p.viaVIP(ctx, service)
		p.direct(ctx, []string{web, api, names}[p.rng.IntN(3)])
	}
}

// try makes an attempt; that it was broken off at the end of the run counts
// for nothing.
func (p *prober) try(ctx context.Context, what string, do func() error, why func(attempt) string) bool {
	a := attempt{begin: time.Now(), host: p.from.index, what: what}
	err := do()
	a.end = time.Now()
	if ctx.Err() != nil {
		return false
	}
	p.result.clients.count()
	if err != nil {
		p.result.clients.failed(a, why(a), err)
	}
	return err == nil
}

// viaVIP resolves a service and fetches from its VIP.
func (p *prober) viaVIP(ctx context.Context, service string) {
	vip := p.book.vip(service)
	if as, ok := p.ask(ctx, service); ok && !slices.Equal(as, []netip.Addr{vip}) {
		p.notVIP(service, as)
		return
	} // without an answer, as a client that asked before
	var id string
	get := func() (err error) {
		id, err = p.from.client.Get(ctx, vip)
		return err
	}
	began := time.Now()
	if p.try(ctx, "GET "+service+" by VIP", get, func(a attempt) string { return p.whyVIP(a, service) }) {
		p.checkReply(service, id, began)
	}
}

// notVIP records that a service was answered with something else than its VIP:
// with its tasks, by a daemon that has just started, which is allowed (R5).
func (p *prober) notVIP(service string, as []netip.Addr) {
	now := time.Now()
	tasks := !slices.ContainsFunc(as, func(a netip.Addr) bool {
		e := p.book.byAddr(a)
		return e == nil || e.task.Service != service
	})
	if !tasks || p.line.outageOf(p.from.index, now.Add(-warming), now) == "" {
		p.violation("on %s %s resolves to %v, not to its VIP %s", p.from.Host.Name, service, as, p.book.vip(service))
		return
	}
	a := attempt{begin: now, end: now, host: p.from.index, what: "DNS " + service}
	p.result.clients.failed(a, "answered with tasks, not the VIP (daemon has just started)", nil)
}

// allAway reports whether every task of a service is on a host that is away,
// so that there is none to tell of or to lead to.
func (p *prober) allAway(a attempt, service string) bool {
	return !slices.ContainsFunc(p.book.all(func(e *entry) bool {
		return e.task.Service == service &&
			e.status == serving
	}), func(e *entry) bool {
		return !p.line.away(a.host, e.host, a.begin, a.end)
	})
}

// ask resolves a name to addresses.
func (p *prober) ask(ctx context.Context, name string) (as []netip.Addr, ok bool) {
	ok = p.try(ctx, "DNS "+name, func() error {
		answer, err := p.from.client.Resolve(ctx, name, dns.TypeA)
		if err != nil {
			return err
		}
		if len(answer.Data) == 0 {
			return fmt.Errorf("the answer is %s", answer)
		}
		for _, d := range answer.Data {
			as = append(as, netip.MustParseAddr(d))
		}
		return nil
	}, func(a attempt) string {
		why := p.line.outageOf(a.host, a.begin, a.end)
		if why == "" && p.allAway(a, strings.TrimPrefix(name, "tasks.")) {
			why = "every task of the service is on a host that is away"
		}
		return why
	})
	return as, ok
}

// direct resolves the tasks of a service, checks the answer and fetches from
// one of them.
func (p *prober) direct(ctx context.Context, service string) {
	began := time.Now()
	as, ok := p.ask(ctx, "tasks."+service)
	if !ok {
		return
	}
	for _, a := range as {
		if e := p.book.byAddr(a); e == nil {
			p.violation("on %s tasks.%s has %s, which was never registered", p.from.Host.Name, service, a)
		} else {
			p.checkFresh("tasks."+service+" has", e, service, began)
		}
	}
	p.checkOwn(service, as, began)
	to := as[p.rng.IntN(len(as))]
	e := p.book.byAddr(to)
	if e == nil {
		return
	}
	p.try(ctx, "GET "+e.task.ID, func() error {
		_, err := p.from.client.Get(ctx, to)
		return err
	}, func(a attempt) string { return p.whyTask(a, e) })
}

// checkOwn demands that a daemon that runs tells of the tasks of its own host.
func (p *prober) checkOwn(service string, as []netip.Addr, began time.Time) {
	if p.line.outageOf(p.from.index, began.Add(-spreading), time.Now()) != "" {
		return
	}
	mine := p.book.all(func(e *entry) bool {
		return e.host == p.from.index && e.task.Service == service && e.status == serving &&
			e.added.Before(began.Add(-spreading))
	})
	for _, e := range mine {
		if !slices.Contains(as, e.task.Addr) && p.book.snapshot(e).status == serving {
			p.violation("on %s tasks.%s lacks %s of the same host: %v", p.from.Host.Name, service, e.task.ID, as)
		}
	}
}

// checkReply demands that the right service answered, by a task that the
// client's host may still send to.
func (p *prober) checkReply(service, id string, began time.Time) {
	es := p.book.all(func(e *entry) bool { return e.task.ID == id })
	if len(es) == 0 {
		p.violation("on %s %q answered for %s, which is no task", p.from.Host.Name, id, service)
		return
	}
	p.checkFresh("the VIP of "+service+" led to", es[0], service, began)
}

// checkFresh demands that a task belongs to the service and is registered, or
// was so until a moment ago.
func (p *prober) checkFresh(what string, e *entry, service string, began time.Time) {
	now := p.book.snapshot(e)
	switch {
	case e.task.Service != service:
		p.violation("on %s %s %s, a task of %s", p.from.Host.Name, what, e.task.ID, e.task.Service)
	case now.status == gone && p.line.mayBeStale(p.from.index, e.host, now.changed, began) == "":
		p.violation("on %s %s %s, which was removed %v ago", p.from.Host.Name, what, e.task.ID,
			began.Sub(now.changed).Round(time.Millisecond))
	}
}

// whyTask explains why a task could not be reached.
func (p *prober) whyTask(a attempt, e *entry) string {
	if why := p.line.link(a.host, e.host, a.begin, a.end, false); why != "" {
		return "backend behind a bad link (" + why + ")"
	}
	if now := p.book.snapshot(e); now.status == gone {
		if why := p.line.mayBeStale(a.host, e.host, now.changed, a.begin); why != "" {
			return "backend removed (" + why + ")"
		}
	}
	return ""
}

// whyVIP explains why a VIP did not lead to a task, by one of the tasks that
// the client's host may have chosen.
func (p *prober) whyVIP(a attempt, service string) string {
	// Where no daemon runs, the kernel goes on with its last table.
	if p.line.outageOf(a.host, a.begin, a.end) == "" && p.allAway(a, service) {
		return "every task of the service is on a host that is away"
	}
	es := p.book.all(func(e *entry) bool { return e.task.Service == service })
	reachable := slices.ContainsFunc(es, func(e *entry) bool {
		return p.book.snapshot(e).status == serving && p.line.link(a.host, e.host, a.begin, a.end, false) == ""
	})
	for _, e := range es {
		if now := p.book.snapshot(e); now.status == gone && p.line.mayBeStale(a.host, e.host, now.changed, a.begin) == "" {
			continue
		}
		if why := p.line.link(a.host, e.host, a.begin, a.end, reachable); why != "" {
			return "VIP chose a backend behind a bad link (" + why + ")"
		}
		if why := p.whyTask(a, e); why != "" {
			return "VIP chose a " + why
		}
	}
	return ""
}

// failures returns how many attempts failed.
func (t *tally) failures() (n int) {
	for n0 := range maps.Values(t.explained) {
		n += n0
	}
	return n + len(t.unexplained)
}
