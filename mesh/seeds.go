package mesh

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

const (
	seedEvery   = 30 * time.Second // between look-ups of the nodes to join that are given by name
	seedTimeout = 5 * time.Second  // for one name
	maxSeedIPs  = 16               // that are kept of one name
)

// seeds are the addresses of the nodes to join that are given as names of hosts:
// they must stay reachable, like those that are given as addresses, also before
// this node has met anybody there. What a name said last counts while it cannot
// be looked up. Addrs is safe for concurrent use.
type seeds struct {
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	names  []string
	known  atomic.Pointer[map[string][]netip.Addr] // never changed
}

// newSeeds returns the names of HOST:PORT in a list.
func newSeeds(join []string) *seeds {
	s := &seeds{lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
	for _, text := range join {
		host, _, err := net.SplitHostPort(text)
		if _, no := netip.ParseAddr(host); err == nil && no != nil && !slices.Contains(s.names, host) {
			s.names = append(s.names, host)
		}
	}
	s.known.Store(&map[string][]netip.Addr{})
	return s
}

// run looks the names up until ctx ends.
func (s *seeds) run(ctx context.Context) error {
	if len(s.names) == 0 {
		return nil
	}
	tick := time.NewTicker(seedEvery)
	defer tick.Stop()
	for {
		s.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look looks all names up, one after the other.
func (s *seeds) look(ctx context.Context) {
	for _, name := range s.names {
		one, cancel := context.WithTimeout(ctx, seedTimeout)
		all, err := s.lookup(one, name)
		cancel()
		if err != nil || len(all) == 0 {
			continue
		}
		known := maps.Clone(*s.known.Load())
		known[name] = all[:min(len(all), maxSeedIPs)]
		s.known.Store(&known)
	}
}

// addrs returns the addresses by name. They must not be changed.
func (s *seeds) addrs() map[string][]netip.Addr { return *s.known.Load() }
