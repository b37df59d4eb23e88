package gossip

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/coordinate"

	"meshd/state"
)

// This file owns what a host remembers for its reconnect loop: peers, seeds, the nodes
// that the membership lists, and those that answer though it does not. Which of them is
// dialled when, is dialing.go's.

// joiner is the reconnect loop of G2. memberlist forgets the dead after half a minute
// and never dials them again, so the joiner goes on to dial remembered peers and seeds
// that are not listed, with jitter and back-off, for ever. Safe for concurrent use.
type joiner struct {
	// Fixed before run.

	self    state.NodeID   // this node
	addr    netip.AddrPort // of this node; attach sets it
	members membershipList // memberlist
	events  *memberQueue   // takes the joins that were answered
	coords  *coordinates   // of the nodes that are listed
	// inject gives memberlist a message, see unlist.go and listing.go; false: too many wait. attach sets it.
	inject   func(message []byte) bool
	versions [6]byte      // of memberlist's protocol, as it states them; attach sets it
	save     peerSaver    // HostConfig.SavePeers; or nil
	leaving  *atomic.Bool // nothing is dialled any more
	log      *slog.Logger // the host's

	// Of the loop.

	wake chan struct{}  // holds a token when there may be something to dial
	wg   sync.WaitGroup // of the dials under way

	// Read without mu.

	alone       atomic.Bool  // the membership lists no other node
	listedCount atomic.Int64 // how many nodes it lists

	mu sync.Mutex // guards everything that follows

	// Whom there is to dial.

	seeds       []string                        // addresses to join, HOST:PORT
	peers       map[state.NodeID]Peer           // nodes that answered where they were listed, at most maxPeers
	unsaved     map[state.NodeID]struct{}       // peers that are not kept as they are, at most maxUnsaved
	unsavedAll  bool                            // in place of unsaved: none may be
	listed      map[state.NodeID]netip.AddrPort // where the membership lists each node
	taken       map[netip.AddrPort]int          // how many of listed are at an address
	wanted      map[netip.AddrPort]wish         // where a node answers that the membership does not list there
	unannounced []answered                      // of wanted, those of which memberlist was not told yet
	lastAnswer  time.Time                       // when a node that is not listed last answered the core
	moves       map[state.NodeID]*move          // nodes that the membership is to forget where it lists them

	// What is under way. Invariant: the counts per address add up to len(wanted) and
	// wantedDials.

	attempts      map[string]*attempt // by address
	wantedDials   int                 // dials of wanted addresses, at most wantedWidth
	searchDials   int                 // dials of peers and seeds, at most searchWidth
	searchAt      time.Time           // when the pace of those dials has room again
	dialsByAddr   map[netip.Addr]int  // of wantedDials: each host has a share
	wantedByAddr  map[netip.Addr]int  // of wanted, likewise
	joins, failed uint64              // dials that listed their node, and those that did not
	announced     uint64              // messages to memberlist that a node is alive
}

// peerSaver is the type of HostConfig.SavePeers.
type peerSaver = func(changes []PeerChange, all func() []Peer) error

// membershipList is what the joiner needs of memberlist.
type membershipList interface {
	Join(addrs []string) (int, error)
	Members() []*memberlist.Node
}

// maxStrangers bounds the addresses that are dialled only because packets came from
// there.
const maxStrangers = 8

// maxListed bounds the nodes of a mesh.
const maxListed = maxMembers

// newJoiner returns the joiner of a host. attach completes it.
func newJoiner(cfg *HostConfig, coords *coordinates, events *memberQueue, leaving *atomic.Bool) *joiner {
	j := &joiner{
		self: cfg.Self, events: events, coords: coords, save: cfg.SavePeers, leaving: leaving, log: cfg.Log,
		wake: make(chan struct{}, 1), seeds: slices.Clone(cfg.Join), peers: map[state.NodeID]Peer{},
		listed: map[state.NodeID]netip.AddrPort{}, taken: map[netip.AddrPort]int{}, wanted: map[netip.AddrPort]wish{},
		moves: map[state.NodeID]*move{}, attempts: map[string]*attempt{}, dialsByAddr: map[netip.Addr]int{},
		wantedByAddr: map[netip.Addr]int{}, unsaved: map[state.NodeID]struct{}{},
	}
	j.alone.Store(true)
	for _, p := range cfg.Peers {
		if p.Name != cfg.Self && state.CheckPeerAddr(p.Addr) == nil && len(j.peers) < maxPeers {
			j.peers[p.Name] = p
		}
	}
	return j
}

// attach gives the joiner this node's address, and the way to inject messages, which
// bear the versions of memberlist's protocol.
func (j *joiner) attach(addr netip.AddrPort, inject func(message []byte) bool, versions [6]byte) {
	j.addr, j.inject, j.versions = addr, inject, versions
}

// run dials until ctx ends, and waits for the dials that are under way.
func (j *joiner) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			j.wg.Wait()
			j.savePeers(true)
			return
		case <-j.wake:
		case <-timer.C:
		}
		wait := rejoinInterval*3/4 + rand.N(rejoinInterval/2)
		if !j.leaving.Load() {
			dials, again := j.dueDials(time.Now())
			for _, d := range dials {
				j.wg.Go(func() { j.dial(d) })
			}
			wait = min(wait, again, j.unlistMoved(time.Now()), j.announceAnswered())
		}
		j.savePeers(false)
		timer.Reset(wait)
	}
}

// wakeUp makes run look for what is due.
func (j *joiner) wakeUp() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// requestJoin asks for a join of an address soon: a node answers there, but the
// membership lost it, or lists another one there. An empty name: it is not known which
// node answers.
func (j *joiner) requestJoin(id state.NodeID, a netip.AddrPort) {
	j.mu.Lock()
	if id == "" {
		j.addWanted(id, a, 0)
	} else {
		j.addWanted(id, a, j.newsTime())
		j.lastAnswer = time.Now()
	}
	j.mu.Unlock()
	j.wakeUp()
}

// onStranger takes the address that a packet came from while no node is listed. A node
// that is back before it was missed, and remembers no peer, is pinged by nodes that take
// it for alive, and can answer nothing but those pings: its way to a table is to join one
// of them (G2, G11).
func (j *joiner) onStranger(a netip.AddrPort) {
	if !a.IsValid() {
		return
	}
	j.mu.Lock()
	_, known := j.wanted[a]
	full := known || len(j.wanted) >= maxStrangers || j.wantedByAddr[a.Addr()] >= wantedShare
	j.mu.Unlock()
	if !full {
		j.requestJoin("", a)
	}
}

// isListed reports whether the membership lists a node.
func (j *joiner) isListed(id state.NodeID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.listed[id].IsValid()
}

// setListed records where the membership lists a node; an invalid address means that it
// does not list the node any more.
func (j *joiner) setListed(id state.NodeID, a netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	countAt(j.taken, j.listed[id], -1)
	countAt(j.taken, a, 1)
	if a.IsValid() {
		j.listed[id] = a
	} else {
		delete(j.listed, id)
		j.coords.forget(id)
	}
	j.listedCount.Store(int64(len(j.listed)))
	_, self := j.listed[j.self]
	j.alone.Store(len(j.listed) == 0 || self && len(j.listed) == 1)
}

// peerAlive records that a node at an address is alive: it may be dialled at once.
func (j *joiner) peerAlive(a netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if t := j.attempts[a.String()]; a.IsValid() && t != nil && !t.running {
		delete(j.attempts, a.String())
	}
}

// updateCoordinate takes a sample of the way to a node, if the membership lists it. An
// answer may come after the node's end; its coordinate would stay for ever then.
func (j *joiner) updateCoordinate(id state.NodeID, c *coordinate.Coordinate, rtt time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.listed[id].IsValid() {
		j.coords.update(id, c, rtt)
	}
}

// counts returns how many dials listed their node, how many did not, and of how many
// nodes memberlist was told.
func (j *joiner) counts() (joins, failed, announced uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.joins, j.failed, j.announced
}
