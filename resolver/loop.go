package resolver

// This file owns the search for upstreams that lead back to us (R7.8).

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// How often an upstream in use is probed for a loop, and one that loops.
const (
	probeEvery   = time.Minute
	probeLooping = 10 * time.Second
)

// loops finds upstreams that send our questions back to us, directly or over
// others: each is asked now and then for a random name, which only it learns. If
// one of our listeners hears that name, the upstream loops. Safe for
// concurrent use.
type loops struct {
	mu      sync.Mutex
	pending map[string]*upstream // by the name asked for; nil: it came back
}

// returned reports whether a question is a probe of ours that came back.
func (l *loops) returned(q *dns.Msg) bool {
	if q.Question[0].Qtype != dns.TypeTXT {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	name := strings.ToLower(q.Question[0].Name)
	if _, ours := l.pending[name]; !ours {
		return false
	}
	l.pending[name] = nil
	return true
}

func (l *loops) begin(name string, u *upstream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending[name] = u
}

// end forgets a probe and reports whether it came back.
func (l *loops) end(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.pending[name]
	delete(l.pending, name)
	return u == nil
}

// probeDue starts the probes of a pool whose time has come. There is traffic
// to an upstream only while clients ask.
func (f *forwarder) probeDue(p *upstreams) {
	for _, u := range p.due(time.Now()) {
		go f.probe(u)
	}
}

// probeAll does so for every upstream.
func (f *forwarder) probeAll() {
	for _, p := range f.routes.Load().all() {
		f.probeDue(p)
	}
}

// probe asks one upstream for a random name and sees what comes back. It
// ends by the timeout of a try at the latest.
func (f *forwarder) probe(u *upstream) {
	ctx, cancel := context.WithTimeout(f.ctx, f.cfg.TryTimeout)
	defer cancel()
	name := fmt.Sprintf("%016x.%016x.", rand.Uint64(), rand.Uint64())
	f.loops.begin(name, u)
	_, err := f.cfg.Exchange(ctx, u.addr, false, new(dns.Msg).SetQuestion(name, dns.TypeTXT))
	switch back := f.loops.end(name); {
	case back && u.setLooping(true):
		f.log.Warn("dns upstream sends our own questions back to us: not asked until it stops doing so", "upstream", u.addr)
	case !back && err == nil && u.setLooping(false):
		f.log.Info("dns upstream does not loop any more", "upstream", u.addr)
	}
}

// probeNow reports whether it is time for a probe, and sets the next time.
func (u *upstream) probeNow(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Before(u.probe) {
		return false
	}
	u.probe = now.Add(probeEvery)
	if u.looping {
		u.probe = now.Add(probeLooping)
	}
	return true
}

// setLooping records what a probe found and reports whether that is news.
func (u *upstream) setLooping(looping bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.looping == looping {
		return false
	}
	u.looping = looping
	if looping {
		u.probe = time.Now().Add(probeLooping)
	}
	return true
}
