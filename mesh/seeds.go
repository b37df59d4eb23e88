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
	names  atomic.Pointer[[]string]                // never changed, but replaced
	known  atomic.Pointer[map[string][]netip.Addr] // never changed, but replaced

	changed chan struct{} // capacity 1
}

// newSeeds returns the names of HOST:PORT in a list.
func newSeeds(join []string) *seeds {
	s := &seeds{lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}, changed: make(chan struct{}, 1)}
	s.known.Store(&map[string][]netip.Addr{})
	s.set(join)
	return s
}

// set replaces the list. It is looked up soon.
func (s *seeds) set(join []string) {
	var names []string
	for _, text := range join {
		host, _, err := net.SplitHostPort(text)
		if _, no := netip.ParseAddr(host); err == nil && no != nil && !slices.Contains(names, host) {
			names = append(names, host)
		}
	}
	s.names.Store(&names)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// run looks the names up until ctx ends.
func (s *seeds) run(ctx context.Context) error {
	tick := time.NewTicker(seedEvery)
	defer tick.Stop()
	for {
		s.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.changed:
		}
	}
}

// look looks all names up, one after the other.
func (s *seeds) look(ctx context.Context) {
	names := *s.names.Load()
	known := maps.Clone(*s.known.Load())
	maps.DeleteFunc(known, func(name string, _ []netip.Addr) bool { return !slices.Contains(names, name) })
	s.known.Store(&known)
	for _, name := range names {
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
