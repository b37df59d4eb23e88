package balancing

import (
	"maps"
	"slices"
	"sync"

	"meshd/lb"
	"meshd/lb/hostwatch"
	"meshd/lb/rulewatch"
)

// balancers are the load balancers of a node, by the name of their sandbox;
// the host's has none. It is safe for concurrent use; the zero value is empty.
type balancers struct {
	mu  sync.Mutex // guards all
	all map[string]Balanced
}

// Balanced is a load balancer with what watches its namespace for it.
type Balanced struct {
	*lb.Balancer
	Facts *hostwatch.Watcher // of addresses and routes
	Rules *rulewatch.Watcher // of the nftables ruleset
}

// watched returns the balancer of that name with its watchers.
func (b *balancers) watched(sandbox string) (one Balanced, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one, ok = b.all[sandbox]
	return one, ok
}

// add makes a balancer known, in place of the one of that name.
func (b *balancers) add(sandbox string, one Balanced) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[string]Balanced{}
	}
	b.all[sandbox] = one
}

// drop forgets a balancer.
func (b *balancers) drop(sandbox string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, sandbox)
}

// get returns the balancer of that name, or nil.
func (b *balancers) get(sandbox string) *lb.Balancer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all[sandbox].Balancer
}

// names returns all names, the host's first.
func (b *balancers) names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.all))
}
