package gossip

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"meshd/state"
)

// This file owns the networks in which this node takes part, and the state that
// the parts keep per network. Its headings say which part owns what.

// network is what the core keeps of one network, or of the global scope, whose name
// is empty. Each group belongs to one part.
type network struct {
	// What it is. nets sets it when the node joins.

	name     string         // "" is the global scope
	hash     uint64         // of the name, see networkHash
	table    *state.Table   // the replicas of all streams in it
	carrier  *state.Carrier // of the claims and settings of services hosted here; nil for the global scope
	joinedAt time.Duration  // when this node joined it

	// What has changed. Owned by push.

	pushed uint64    // version of the own stream up to which peers got it; 0: nothing
	hot    []hotHead // streams that changed, newest last, at most maxHot

	// versionTimes is when the own stream had which version, oldest first. Owned by
	// Core.forgetTombstones (S6).
	versionTimes []versionTime

	// When the claims are looked at. Owned by claims.

	carryAt         time.Duration // when they are due by time; 0: they are not
	carrySlot       int           // its place in claims.due
	carryNotBefore  time.Duration // claims of others make this node look at its own again only then
	reportedFailure string        // which services have no address, as the last event said; "": all have one

	// How it compares with those of others. Owned by repair.

	compared      bool                     // it was compared with another node's in this life, see markCompared
	probedAt      time.Duration            // when its hash was last sent to a peer
	equalAt       time.Duration            // when a peer's hash was last equal
	differedAt    time.Duration            // when a peer's hash last differed
	agreements    [maxAgreements]agreement // pairs of hashes that leave nothing to do
	nextAgreement int                      // where the next pair goes: the oldest is overwritten

	// Whom to ask for the whole of it, while it is not yet synced. Owned by fetch.

	askQueued      bool           // it is in fetch.askQueue
	appeared       []state.NodeID // members that appeared since the last question: asked first
	askedCount     int            // how many were asked since askSince
	askSince       time.Duration  // begin of the window in which questions are counted; 0: none
	provenAppeared bool           // a member has shown that it exists since the network is asked for
	answerDue      time.Duration  // when those who were asked should have answered
	fetchPeer      state.NodeID   // who sends the whole table
	fetchUntil     time.Duration  // until then fetchPeer is waited for
	moreComing     bool           // fetchPeer has not yet said that this was all
	livingCount    int            // how many participants lived at livingCountAt, see countLiving
	livingCountAt  time.Duration  // when that was counted
}

// dueAt and slot make a network one of the appointments of claims.
func (n *network) dueAt() time.Duration { return n.carryAt }
func (n *network) slot() *int           { return &n.carrySlot }

// hotHead is a stream that has changed.
type hotHead struct {
	owner state.NodeID
	at    time.Duration
}

// versionTime is when the own stream had a version.
type versionTime struct {
	at      time.Duration
	version uint64
}

// streamKey names a stream: an owner's records in a network.
type streamKey struct {
	network string
	owner   state.NodeID
}

// nets is the networks in which this node takes part, the global scope included.
//
// Invariant: order holds the names of byName, sorted, and no two of them have one
// hash.
type nets struct {
	*env

	byName map[string]*network // "" is the global scope
	order  []string
	byHash map[uint64]*network
	behind []*network               // those that were not yet synced when unsynced last looked, by name
	parted map[string]bool          // networks that were left in this life: a return needs a new incarnation
	hashOf func(name string) uint64 // networkHash, but in tests
}

// ErrNameTaken is wrapped by errors about a network whose name has the same hash
// as another's, so that probes could not tell them apart.
var ErrNameTaken = errors.New("the name is not usable on this node")

// networkHash stands for a network in probes. Two networks of one hash would be
// compared with each other, so a node takes part in only one of them; with 64
// bits of SHA-256 nobody can make such names on purpose.
func networkHash(name string) uint64 {
	h := sha256.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(h[:])
}

// byProbeHash returns the network that a probe of that frame type names, or nil
// if this node does not take part in it.
func (s *nets) byProbeHash(typ byte, hash uint64) (found *network) {
	if hashWidth(typ) == 8 {
		return s.byHash[hash]
	}
	for _, n := range s.byName {
		if xxhash.Sum64String(n.name)&math.MaxUint32 != hash {
			continue
		}
		if found != nil {
			return nil // the hash is ambiguous
		}
		found = n
	}
	return found
}

// checkHash returns an error if a network's hash is already that of another
// network here.
func (s *nets) checkHash(name string) error {
	if other := s.byHash[s.hashOf(name)]; other != nil {
		return fmt.Errorf("network %q: %w: its name has the hash of network %q; give it another name", name, ErrNameTaken,
			other.name)
	}
	return nil
}

// add makes the node take part in a network whose table is t.
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
	i, _ = slices.BinarySearchFunc(s.behind, name, func(n *network, name string) int {
		return strings.Compare(n.name, name)
	})
	s.behind = slices.Insert(s.behind, i, n)
	return n
}

// unsynced returns the networks of which the node does not have the whole yet, by name.
// The slice is valid until the next call.
func (s *nets) unsynced() []*network {
	s.behind = slices.DeleteFunc(s.behind, func(n *network) bool {
		return n.table.View().Synced() || s.byName[n.name] != n
	})
	return s.behind
}

// remove ends the node's part in a network.
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

// markCompared records that the network was compared with another node: all that
// the other has of it is here.
func (n *network) markCompared() {
	n.table.SetSynced()
	n.compared = true
}

// fetching reports whether a peer is sending the whole of a large table that is
// not yet synced. No other peer is asked for it meanwhile.
func (n *network) fetching(now time.Duration) bool {
	return now < n.fetchUntil && !n.table.View().Synced()
}
