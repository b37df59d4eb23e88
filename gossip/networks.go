package gossip

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"

	"meshd/state"
)

// networkHash stands for a network in probes. Two networks of one hash would be
// compared with each other: a node takes part in one of them only, and names
// that have one hash cannot be made.
func networkHash(name string) uint64 {
	h := sha256.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(h[:])
}

// networkByHash returns the network of a probe of that type, nil for one in which
// this node does not take part.
func (c *Core) networkByHash(typ byte, hash uint64) (found *network) {
	if hashWidth(typ) == 8 {
		return c.byHash[hash]
	}
	for _, n := range c.networks {
		if xxhash.Sum64String(n.name)&math.MaxUint32 != hash {
			continue
		}
		if found != nil {
			return nil // either of two
		}
		found = n
	}
	return found
}

// checkHash says why a network cannot be taken part in beside the others.
func (c *Core) checkHash(name string) error {
	if other := c.byHash[c.hashOf(name)]; other != nil {
		return fmt.Errorf("network %q: %w: its name has the hash of network %q; give it another name", name, ErrNameTaken,
			other.name)
	}
	return nil
}

func (c *Core) addNetwork(name string, t *state.Table) *network {
	n := &network{name: name, hash: c.hashOf(name), table: t, joinedAt: c.now}
	if name != "" {
		n.carrier = state.NewCarrier(c.cfg.Grace, c.cfg.Quarantine)
	}
	if c.cfg.Peers == nil {
		t.Open()
	}
	c.networks[name] = n
	c.byHash[n.hash] = n
	i, _ := slices.BinarySearch(c.order, name)
	c.order = slices.Insert(c.order, i, name)
	return n
}

func (c *Core) dropNetwork(name string) {
	n := c.networks[name]
	if n == nil {
		return
	}
	delete(c.networks, name)
	if c.byHash[n.hash] == n {
		delete(c.byHash, n.hash)
	}
	i, _ := slices.BinarySearch(c.order, name)
	c.order = slices.Delete(c.order, i, i+1)
	for k := range c.pulls {
		if k.network == name {
			c.dropPull(k)
		}
	}
}

// pick returns up to k random members of from without those in not, in random order.
func (c *Core) pick(from []state.NodeID, k int, not ...state.NodeID) []state.NodeID {
	out := make([]state.NodeID, 0, k)
	n := len(from)
	if n <= 2*k+len(not) {
		for _, i := range c.rng.Perm(n) {
			if p := from[i]; len(out) < k && p != c.cfg.Self && !slices.Contains(not, p) {
				out = append(out, p)
			}
		}
		return out
	}
	for tries := 0; len(out) < k && tries < 8*k; tries++ {
		p := from[c.rng.IntN(n)]
		if p != c.cfg.Self && !slices.Contains(not, p) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// living returns the participants of a network that are thought to live.
func (c *Core) living(name string) []state.NodeID {
	if c.cfg.Peers != nil {
		return c.cfg.Peers
	}
	if ts, ok := c.targets[name]; ok {
		return ts
	}
	var ts []state.NodeID
	if name == "" {
		for _, m := range c.ordered {
			if m.reachable() {
				ts = append(ts, m.id)
			}
		}
	} else {
		for _, id := range c.store.Participants(name) {
			if m := c.members[id]; m != nil && m.reachable() {
				ts = append(ts, id)
			}
		}
	}
	c.targets[name] = ts
	return ts
}
