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

// byProbeHash returns the network of a probe of that type, nil for one in which
// this node does not take part.
func (s *nets) byProbeHash(typ byte, hash uint64) (found *network) {
	if hashWidth(typ) == 8 {
		return s.byHash[hash]
	}
	for _, n := range s.byName {
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
func (s *nets) checkHash(name string) error {
	if other := s.byHash[s.hashOf(name)]; other != nil {
		return fmt.Errorf("network %q: %w: its name has the hash of network %q; give it another name", name, ErrNameTaken,
			other.name)
	}
	return nil
}

func (s *nets) add(name string, t *state.Table) *network {
	n := &network{name: name, hash: s.hashOf(name), table: t, joinedAt: s.now}
	if name != "" {
		n.carrier = state.NewCarrier(s.cfg.Grace, s.cfg.Quarantine)
	}
	if s.cfg.Peers == nil {
		t.Open()
	}
	s.byName[name] = n
	s.byHash[n.hash] = n
	i, _ := slices.BinarySearch(s.order, name)
	s.order = slices.Insert(s.order, i, name)
	return n
}

func (s *nets) remove(name string) {
	n := s.byName[name]
	if n == nil {
		return
	}
	delete(s.byName, name)
	if s.byHash[n.hash] == n {
		delete(s.byHash, n.hash)
	}
	i, _ := slices.BinarySearch(s.order, name)
	s.order = slices.Delete(s.order, i, i+1)
}

// pick returns up to k random members of from without those in not, in random order.
func (r *roster) pick(from []state.NodeID, k int, not ...state.NodeID) []state.NodeID {
	out := make([]state.NodeID, 0, k)
	n := len(from)
	if n <= 2*k+len(not) {
		for _, i := range r.rng.Perm(n) {
			if p := from[i]; len(out) < k && p != r.cfg.Self && !slices.Contains(not, p) {
				out = append(out, p)
			}
		}
		return out
	}
	for tries := 0; len(out) < k && tries < 8*k; tries++ {
		p := from[r.rng.IntN(n)]
		if p != r.cfg.Self && !slices.Contains(not, p) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// living returns the participants of a network that are thought to live.
func (r *roster) living(name string) []state.NodeID {
	if r.cfg.Peers != nil {
		return r.cfg.Peers
	}
	if ts, ok := r.targets[name]; ok {
		return ts
	}
	var ts []state.NodeID
	if name == "" {
		for _, m := range r.ordered {
			if m.reachable() {
				ts = append(ts, m.id)
			}
		}
	} else {
		for _, id := range r.store.Participants(name) {
			if m := r.members[id]; m != nil && m.reachable() {
				ts = append(ts, id)
			}
		}
	}
	r.targets[name] = ts
	return ts
}

// nets is the networks in which this node takes part.
type nets struct {
	*env

	byName map[string]*network // by name, "" is the global scope
	order  []string            // their names, sorted
	byHash map[uint64]*network
	parted map[string]bool // networks left in this life
	hashOf func(name string) uint64
}
