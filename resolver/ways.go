package resolver

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// ways are the upstreams: those of domains with servers of their own, the longest
// domain first, and those of all other names.
type ways struct {
	rest    *upstreams
	domains []*upstreams
}

// waysOf returns the ways that a configuration names.
func (f *forwarder) waysOf(cfg ForwardConfig) *ways {
	w := &ways{rest: newUpstreams(cfg, f.log, f.met, f.own)}
	for d, servers := range cfg.Domains {
		c := cfg
		c.Upstreams = servers
		p := newUpstreams(c, f.log, f.met, f.own)
		p.domain = fold(d)
		w.domains = append(w.domains, p)
	}
	slices.SortFunc(w.domains, func(a, b *upstreams) int {
		return cmp.Or(len(b.domain)-len(a.domain), strings.Compare(a.domain, b.domain))
	})
	return w
}

// poolOf returns the upstreams for a lower-case name without its final dot.
func (w *ways) poolOf(name string) *upstreams {
	for _, p := range w.domains {
		if _, in := cutDomain(name, p.domain); in {
			return p
		}
	}
	return w.rest
}

// pools returns all upstreams.
func (w *ways) pools() []*upstreams { return append([]*upstreams{w.rest}, w.domains...) }

// SetUpstreams replaces the servers that names of others are forwarded to, and
// those of domains, as in ForwardConfig. What is known of servers that stay is
// kept; questions in flight end where they were asked. The error names what is
// wrong; then nothing is changed. Safe for concurrent use.
func (s *Server) SetUpstreams(servers []netip.AddrPort, domains map[string][]netip.AddrPort) error {
	cfg := s.forward.cfg
	cfg.Upstreams, cfg.Domains = servers, domains
	if _, err := cfg.withDefaults(); err != nil {
		return err
	}
	next := s.forward.waysOf(cfg)
	was := map[string]*upstreams{}
	for _, p := range s.forward.ways.Load().pools() {
		was[p.domain] = p
	}
	for _, p := range next.pools() {
		if old := was[p.domain]; old != nil {
			old.mu.Lock()
			p.list = slices.Clone(old.list) // for replace
			old.mu.Unlock()
		}
	}
	s.forward.ways.Store(next)
	return nil
}
