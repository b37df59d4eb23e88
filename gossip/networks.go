package gossip

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"meshd/state"
)

// This file owns the networks in which this node takes part, and the state that
// the parts keep per network. Its heads say which part owns what.

// network is what the core keeps per table.
type network struct {
	name            string
	hash            uint64 // of the name, see networkHash
	table           *state.Table
	carrier         *state.Carrier // nil for the global scope
	pushed          uint64         // own version up to which peers were told
	hot             []hotHead      // recent news, newest last
	carryAt         time.Duration  // 0: not by time
	carryNotBefore  time.Duration  // until then claims of others do not make it look at its own again
	joinedAt        time.Duration
	versionTimes    []versionTime // own versions by time, for S6
	reportedFailure string        // which services have no address, as it was last told
	compared        bool          // compared with another node in this life, see meet

	probedAt       time.Duration // when its hash was last sent to a peer
	livingCount    int           // how many of its participants lived at countedAt, see livingIn
	livingCountAt  time.Duration
	askQueued      bool           // to be asked for at the end of the step
	appeared       []state.NodeID // who came since it was last asked for: asked first
	askedCount     int            // how many peers since askFrom
	askSince       time.Duration
	provenAppeared bool          // somebody showed that it is there since it is sought
	answerDue      time.Duration // when those who were asked should have answered
	fetchPeer      state.NodeID  // who sends the whole of it
	fetchUntil     time.Duration
	moreComing     bool // and has not yet said that this was all

	agreements    [maxAgreements]agreement // that differ in nothing that is to be done, oldest overwritten
	nextAgreement int                      // the next place there

	equalAt, differedAt time.Duration // when it last compared equal and unequal with a peer's
}

type hotHead struct {
	owner state.NodeID
	at    time.Duration
}

type versionTime struct {
	at      time.Duration
	version uint64
}

type streamKey struct {
	network string
	owner   state.NodeID
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

// ErrNameTaken is wrapped by errors about a network whose name cannot be told
// from another's on the wire.
var ErrNameTaken = errors.New("the name is not usable on this node")

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

// markCompared notes that a network was compared with another node: all that it has of
// the network is known here.
func (n *network) markCompared() {
	n.table.SetSynced()
	n.compared = true
}

// fetching reports whether a peer is sending the whole of a large table that
// is not yet synced: nobody else is asked for it meanwhile.
func (n *network) fetching(now time.Duration) bool {
	return now < n.fetchUntil && !n.table.View().Synced()
}
