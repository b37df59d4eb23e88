package resolver

// This file owns which servers a name is forwarded to. Their health is in
// upstream.go, the questions in forward.go.

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// routes says which servers a name of others is forwarded to. It is immutable,
// but for the lists of servers themselves.
type routes struct {
	domains []*upstreams // of domains with servers of their own, the longest domain first
	others  *upstreams   // of all other names
}

// newRoutes returns the routes of a configuration.
func (f *forwarder) newRoutes(cfg ForwardConfig) *routes {
	r := &routes{others: newUpstreams(cfg, f.log, f.met, f.own)}
	for d, servers := range cfg.Domains {
		c := cfg
		c.Upstreams = servers
		p := newUpstreams(c, f.log, f.met, f.own)
		p.domain = fold(d)
		r.domains = append(r.domains, p)
	}
	slices.SortFunc(r.domains, func(a, b *upstreams) int {
		return cmp.Or(len(b.domain)-len(a.domain), strings.Compare(a.domain, b.domain))
	})
	return r
}

// serversFor returns the servers for a lower-case name without its final dot.
func (r *routes) serversFor(name string) *upstreams {
	for _, p := range r.domains {
		if _, in := cutDomain(name, p.domain); in {
			return p
		}
	}
	return r.others
}

// all returns the servers of all routes.
func (r *routes) all() []*upstreams { return append([]*upstreams{r.others}, r.domains...) }

// SetUpstreams replaces ForwardConfig.Upstreams and Domains. Servers that stay
// keep their health, and questions in flight end where they were asked. The error
// wraps ErrConfig and names what is wrong; then nothing is changed. Safe for
// concurrent use.
func (s *Server) SetUpstreams(servers []netip.AddrPort, domains map[string][]netip.AddrPort) error {
	cfg := s.forward.cfg
	cfg.Upstreams, cfg.Domains = servers, domains
	if _, err := cfg.withDefaults(); err != nil {
		return err
	}
	next := s.forward.newRoutes(cfg)
	was := map[string]*upstreams{}
	for _, p := range s.forward.routes.Load().all() {
		was[p.domain] = p
	}
	for _, p := range next.all() {
		if old := was[p.domain]; old != nil {
			old.mu.Lock()
			p.list = slices.Clone(old.list) // for replace
			old.mu.Unlock()
		}
	}
	s.forward.routes.Store(next)
	return nil
}
