package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/coordinate"

	"meshd/state"
)

// joiner is the reconnect loop of G2: memberlist forgets the dead after half a
// minute and never dials them again, so this loop keeps trying remembered
// peers and seeds that are not alive, with jitter and back-off, for ever.
type joiner struct {
	h           *Host
	wake        chan struct{}
	alone       atomic.Bool  // the membership lists nobody
	listedCount atomic.Int64 // how many it lists

	wg sync.WaitGroup

	mu           sync.Mutex // guards everything that follows
	peers        map[state.NodeID]Peer
	listed       map[state.NodeID]netip.AddrPort // whom the membership lists
	coords       map[state.NodeID]*coordinate.Coordinate
	wanted       map[netip.AddrPort]state.NodeID // where one answers that is not listed there; "": nobody knows who
	attempts     map[string]*attempt
	moves        map[state.NodeID]*move // whom the membership is to list elsewhere
	wantedDials  int                    // those that answer
	searchDials  int                    // peers and seeds that may be there
	lastAnswer   time.Time              // a node answered last that the membership does not list
	dialsByAddr  map[netip.Addr]int     // of dialling, by address: a host has a share
	wantedByAddr map[netip.Addr]int     // of wanted, likewise
	dirty        bool
	joins        uint64
	failed       uint64
}

type attempt struct {
	last, next time.Time
	delay      time.Duration
	running    bool
	reported   bool  // that it failed
	err        error // of the last dial that ended
	unlisted   int   // joins in a row that did not list the node
}

// The reconnect loop's pace: a missing peer is tried every few seconds at
// first, then ever more rarely, but at least twice a minute. One that answers
// the core's pings is joined at once.
const (
	rejoinInterval = time.Second
	rejoinMin      = 2 * time.Second
	rejoinWant     = 200 * time.Millisecond // between joins of one that answers, at least

	// After a join that did not list the node: the membership is about to find
	// out that its old address is dead.
	unlistedRetry      = 300 * time.Millisecond
	maxUnlistedRetries = 8 // so often

	rejoinMax   = 30 * time.Second
	rejoinWidth = 4 // peers and seeds that are dialled at once
	wantedWidth = 8 // and of those that answer so many,
	wantedShare = 2 // at one address so many
)

func (j *joiner) init(h *Host) {
	j.h, j.wake = h, make(chan struct{}, 1)
	j.alone.Store(true)
	j.peers, j.listed = map[state.NodeID]Peer{}, map[state.NodeID]netip.AddrPort{}
	j.coords, j.wanted, j.attempts = map[state.NodeID]*coordinate.Coordinate{}, map[netip.AddrPort]state.NodeID{},
		map[string]*attempt{}
	j.moves = map[state.NodeID]*move{}
	j.dialsByAddr, j.wantedByAddr = map[netip.Addr]int{}, map[netip.Addr]int{}
	for _, p := range h.cfg.Peers {
		if p.Name != h.cfg.Self && state.CheckPeerAddr(p.Addr) == nil && len(j.peers) < maxPeers {
			j.peers[p.Name] = p
		}
	}
}

// requestJoin asks for a join of an address soon: a node answers there, but the
// membership lost it, or lists another there. An empty name: it is not known who.
func (j *joiner) requestJoin(id state.NodeID, a netip.AddrPort) {
	j.mu.Lock()
	j.addWanted(id, a)
	if id != "" {
		j.lastAnswer = time.Now()
	}
	j.mu.Unlock()
	j.wakeUp()
}

// wakeUp makes run look for what is due.
func (j *joiner) wakeUp() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// maxStrangers bounds the addresses that are dialled because packets came from
// there.
const maxStrangers = 8

// onStranger notes where a packet came from while nobody is listed. A node that
// was back before anybody missed it, and remembers no peer, is pinged by those
// who take it for alive, and cannot answer but to the membership's pings: the
// way to a table is to join one of them (G2, G11).
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

// maxListed bounds the nodes of a mesh.
const maxListed = 1 << 14

// isListed reports whether the membership lists a node.
func (j *joiner) isListed(id state.NodeID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.listed[id].IsValid()
}

// setListed notes whom the membership lists, and where; an invalid address: no more.
func (j *joiner) setListed(id state.NodeID, a netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if a.IsValid() {
		j.listed[id] = a
	} else {
		delete(j.listed, id)
		delete(j.coords, id)
		j.h.coord.ForgetNode(string(id))
	}
	j.listedCount.Store(int64(len(j.listed)))
	_, self := j.listed[j.h.cfg.Self]
	j.alone.Store(len(j.listed) == 0 || self && len(j.listed) == 1)
}

// peerAnswered notes that the membership reached a node where it lists it: that is
// what makes it a peer to find again. What is only said of nodes is not
// remembered, nor kept on disk.
func (j *joiner) peerAnswered(id state.NodeID, a netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if id == j.h.cfg.Self || j.listed[id] != a || !a.IsValid() {
		return
	}
	_, known := j.peers[id]
	if !known && len(j.peers) >= maxPeers {
		j.forgetOldest()
	}
	j.dirty = j.dirty || j.peers[id].Addr != a
	j.peers[id] = Peer{Name: id, Addr: a, Seen: time.Now()}
}

// forgetOldest drops the peer that was not seen for longest. The caller holds mu.
func (j *joiner) forgetOldest() {
	var oldest state.NodeID
	for id, p := range j.peers {
		if o, ok := j.peers[oldest]; !ok || p.Seen.Before(o.Seen) {
			oldest = id
		}
	}
	delete(j.peers, oldest)
}

// peerAlive notes that a peer is alive: it may be dialled at once.
func (j *joiner) peerAlive(a netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if t := j.attempts[a.String()]; a.IsValid() && t != nil && !t.running {
		delete(j.attempts, a.String())
	}
}

// forgetPeer drops a peer that left in order.
func (j *joiner) forgetPeer(id state.NodeID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.peers, id)
	delete(j.coords, id)
	j.dirty = true
}

// updateCoordinate takes a sample of the way to a node, if the membership lists it
// still: an answer may come behind its end, and nobody would forget it then.
func (j *joiner) updateCoordinate(id state.NodeID, c *coordinate.Coordinate, rtt time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.listed[id].IsValid() {
		return
	}
	_, _ = j.h.coord.Update(string(id), c, rtt) // a bad sample is ignored
	j.coords[id] = c
}

func (j *joiner) coordinateOf(id state.NodeID) *coordinate.Coordinate {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.coords[id]
}

// run dials until ctx ends, and waits for the dials that are under way.
func (j *joiner) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			j.wg.Wait()
			j.save(true)
			return
		case <-j.wake:
		case <-timer.C:
		}
		wait := rejoinInterval*3/4 + rand.N(rejoinInterval/2)
		if !j.h.leaving.Load() {
			dials, again := j.dueDials(time.Now())
			for _, d := range dials {
				j.wg.Go(func() { j.dial(d) })
			}
			wait = min(wait, again, j.unlistMoved(time.Now()))
		}
		j.save(false)
		timer.Reset(wait)
	}
}

// dialRequest is an address to be joined, and who should be listed there then; an empty
// name: somebody.
type dialRequest struct {
	id   state.NodeID
	addr string
	from netip.Addr // whose share it takes; invalid: it is a peer or a seed that may be there
}

// dial dials an address that due returned. It is never waited for: through a
// cut, a dial takes as long as it may.
func (j *joiner) dial(d dialRequest) {
	_, err := j.h.ml.Join([]string{d.addr})
	if a, bad := netip.ParseAddrPort(d.addr); err == nil && bad == nil {
		j.h.memberEventQueue.addEvent(memberEvent{kind: 'a', addr: a})
	}
	vain := err == nil && !j.listsAt(d)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.releaseSlot(d)
	if len(j.wanted) > 0 {
		defer j.wakeUp() // others may wait for its place
	}
	t := j.attempts[d.addr]
	t.running, t.last, t.err = false, time.Now(), joinError(err)
	switch {
	case err != nil:
		j.failed++
		if !t.reported {
			t.reported = true
			j.h.log.Warn("cannot join", "addr", d.addr, "error", t.err)
		}
		t.delay = min(max(2*t.delay, rejoinMin), rejoinMax)
	case vain:
		j.failed++
		if t.unlisted++; t.unlisted <= maxUnlistedRetries {
			t.delay = unlistedRetry
			j.requestAgain(d)
		} else {
			t.delay = min(2*t.delay, rejoinMax)
		}
	default:
		j.joins++
		t.unlisted, t.delay = 0, rejoinMax // it is listed now; or it is the name of a node that is
	}
	t.next = t.last.Add(t.delay/2 + rand.N(t.delay))
}

// requestAgain keeps one that answers wanted: the membership refused it, since it
// is about to find out that its old address is dead. The caller holds mu.
func (j *joiner) requestAgain(d dialRequest) {
	a, err := netip.ParseAddrPort(d.addr)
	if err != nil || d.id == "" {
		return
	}
	if _, other := j.wanted[a]; !other {
		j.addWanted(d.id, a)
	}
}

// listsAt reports whether the membership has a node at its address now. Tables that
// were exchanged are no proof: the membership refuses a node inside them, without
// an error, while it holds its name for alive elsewhere. A host name counts as
// listed, since it is not known whose address it was.
func (j *joiner) listsAt(d dialRequest) bool {
	a, err := netip.ParseAddrPort(d.addr)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(j.h.ml.Members(), func(n *memberlist.Node) bool {
		return nodeAddr(n) == a && (d.id == "" || n.Name == string(d.id))
	})
}

// joinError says what to look at.
func joinError(err error) error {
	if err == nil {
		return nil
	}
	s := strings.Join(strings.Fields(err.Error()), " ")
	s = strings.TrimPrefix(s, "1 error occurred: * ")
	err = errors.New(s)
	switch {
	case strings.Contains(strings.ToLower(s), "no installed keys"), strings.Contains(s, "EOF"),
		strings.Contains(s, "encryption"):
		return fmt.Errorf("%w (does it have the same --key-file?)", err)
	case strings.Contains(s, "refused"):
		return fmt.Errorf("%w (is meshd running there, on that port?)", err)
	case strings.Contains(s, "timeout"), strings.Contains(s, "no route"):
		return fmt.Errorf("%w%s", err, noReplyHint)
	}
	return err
}

// save hands the peers to be kept, when they changed.
func (j *joiner) save(last bool) {
	j.mu.Lock()
	if !j.dirty && !last || j.h.cfg.SavePeers == nil {
		j.mu.Unlock()
		return
	}
	j.dirty = false
	ps := make([]Peer, 0, len(j.peers))
	for _, p := range j.peers {
		ps = append(ps, p)
	}
	j.mu.Unlock()
	j.h.cfg.SavePeers(ps)
}

// Peers returns the peers to remember. Safe for concurrent use.
func (h *Host) Peers() []Peer {
	h.joiner.mu.Lock()
	defer h.joiner.mu.Unlock()
	ps := make([]Peer, 0, len(h.joiner.peers))
	for _, p := range h.joiner.peers {
		ps = append(ps, p)
	}
	return ps
}

// JoinResult is what came of one address.
type JoinResult struct {
	Addr string
	Err  error
}

// Join contacts addresses at once and reports each. The ones that failed are
// not tried again by themselves.
func (h *Host) Join(ctx context.Context, addrs []string) []JoinResult {
	out := make([]JoinResult, len(addrs))
	var wg sync.WaitGroup
	for i, a := range addrs {
		wg.Go(func() {
			_, err := h.ml.Join([]string{a})
			if err != nil {
				err = joinError(err)
			}
			out[i] = JoinResult{Addr: a, Err: err}
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	select {
	case <-finished:
		return out
	case <-ctx.Done():
		res := make([]JoinResult, len(addrs))
		for i, a := range addrs {
			res[i] = JoinResult{Addr: a, Err: ctx.Err()}
		}
		return res
	}
}
