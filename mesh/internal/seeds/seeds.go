// Package seeds keeps the addresses of the nodes to join that are given by name.
//
// It owns the names and what each said last. It asks the host's resolver, and touches
// nothing else.
package seeds

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
	interval = 30 * time.Second // between two look-ups of a name
	timeout  = 5 * time.Second  // of one look-up
	maxAddrs = 16               // addresses that are kept of one name
)

// Seeds are the addresses of the nodes to join that are given as names of hosts: they must
// stay reachable, like those that are given as addresses, also before this node has met
// another one there. What a name said last counts while it cannot be looked up. Its
// methods are safe for concurrent use; Run is called once.
type Seeds struct {
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	names  atomic.Pointer[[]string]                // replaced, never changed
	known  atomic.Pointer[map[string][]netip.Addr] // by name; replaced, never changed

	changed chan struct{} // says that names is another one; its capacity is 1
}

// New returns the seeds of a list of HOST:PORT or IP:PORT; those by address are left out.
func New(join []string) *Seeds {
	s := &Seeds{lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}, changed: make(chan struct{}, 1)}
	s.known.Store(&map[string][]netip.Addr{})
	s.Set(join)
	return s
}

// Set replaces the list. Its names are looked up soon.
func (s *Seeds) Set(join []string) {
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

// Run looks the names up again and again until ctx ends.
func (s *Seeds) Run(ctx context.Context) error {
	tick := time.NewTicker(interval)
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
func (s *Seeds) look(ctx context.Context) {
	names := *s.names.Load()
	known := maps.Clone(*s.known.Load())
	maps.DeleteFunc(known, func(name string, _ []netip.Addr) bool { return !slices.Contains(names, name) })
	s.known.Store(&known)
	for _, name := range names {
		one, cancel := context.WithTimeout(ctx, timeout)
		all, err := s.lookup(one, name)
		cancel()
		if err != nil || len(all) == 0 {
			continue
		}
		known := maps.Clone(*s.known.Load())
		known[name] = all[:min(len(all), maxAddrs)]
		s.known.Store(&known)
	}
}

// Addrs returns the addresses by name. The map must not be changed.
func (s *Seeds) Addrs() map[string][]netip.Addr { return *s.known.Load() }
