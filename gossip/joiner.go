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
	"time"

	"github.com/hashicorp/serf/coordinate"

	"meshd/state"
)

// joiner is the reconnect loop of G2: memberlist forgets the dead after half a
// minute and never dials them again, so this loop keeps trying remembered
// peers and seeds that are not alive, with jitter and back-off, for ever.
type joiner struct {
	h    *Host
	wake chan struct{}

	mu     sync.Mutex // guards everything that follows
	peers  map[state.NodeID]Peer
	alive  map[state.NodeID]bool
	coords map[state.NodeID]*coordinate.Coordinate
	wanted map[netip.AddrPort]bool
	tries  map[string]*attempt
	dirty  bool
	joins  uint64
	failed uint64
}

type attempt struct {
	next  time.Time
	delay time.Duration
}

// The reconnect loop's pace: a missing peer is tried every few seconds at
// first, then ever more rarely, but at least twice a minute.
const (
	rejoinEvery = time.Second
	rejoinMin   = 2 * time.Second
	rejoinMax   = 30 * time.Second
	rejoinWidth = 4 // addresses dialled at once
)

func (j *joiner) init(h *Host) {
	j.h, j.wake = h, make(chan struct{}, 1)
	j.peers, j.alive = map[state.NodeID]Peer{}, map[state.NodeID]bool{}
	j.coords, j.wanted, j.tries = map[state.NodeID]*coordinate.Coordinate{}, map[netip.AddrPort]bool{}, map[string]*attempt{}
	for _, p := range h.cfg.Peers {
		if p.Name != h.cfg.Self && p.Addr.IsValid() {
			j.peers[p.Name] = p
		}
	}
}

// want asks for a join of an address soon: it answers, but the membership lost it.
func (j *joiner) want(a netip.AddrPort) {
	j.mu.Lock()
	j.wanted[a] = true
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// seen notes that a peer is alive.
func (j *joiner) seen(id state.NodeID, a netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if a.IsValid() {
		j.dirty = j.dirty || j.peers[id].Addr != a
		j.peers[id] = Peer{Name: id, Addr: a, Seen: time.Now()}
		delete(j.tries, a.String())
	}
}

// forget drops a peer that left in order.
func (j *joiner) forget(id state.NodeID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.peers, id)
	j.dirty = true
}

func (j *joiner) coordinate(id state.NodeID, c *coordinate.Coordinate) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.coords[id] = c
}

func (j *joiner) coordinateOf(id state.NodeID) *coordinate.Coordinate {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.coords[id]
}

// run dials until ctx ends.
func (j *joiner) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			j.save(true)
			return
		case <-j.wake:
		case <-timer.C:
		}
		j.round(ctx)
		j.save(false)
		timer.Reset(rejoinEvery*3/4 + rand.N(rejoinEvery/2))
	}
}

// round dials the due addresses, a few at once.
func (j *joiner) round(ctx context.Context) {
	if j.h.leaving.Load() {
		return
	}
	due := j.due()
	var wg sync.WaitGroup
	for _, a := range due {
		if ctx.Err() != nil {
			return
		}
		wg.Go(func() { j.join(a) })
	}
	wg.Wait()
}

func (j *joiner) join(addr string) {
	_, err := j.h.ml.Join([]string{addr})
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.tries[addr]
	if t == nil {
		t = &attempt{}
		j.tries[addr] = t
	}
	if err == nil {
		j.joins++
		t.delay = rejoinMin
	} else {
		j.failed++
		if t.delay == 0 {
			j.h.log.Warn("cannot join", "addr", addr, "error", joinError(err))
		}
		t.delay = min(max(2*t.delay, rejoinMin), rejoinMax)
	}
	t.next = time.Now().Add(t.delay/2 + rand.N(t.delay))
}

// joinError says what to look at.
func joinError(err error) error {
	s := strings.Join(strings.Fields(err.Error()), " ")
	s = strings.TrimPrefix(s, "1 error occurred: * ")
	err = errors.New(s)
	switch {
	case strings.Contains(strings.ToLower(s), "no installed keys"), strings.Contains(s, "EOF"), strings.Contains(s, "encryption"):
		return fmt.Errorf("%w (does it have the same --key-file?)", err)
	case strings.Contains(s, "refused"):
		return fmt.Errorf("%w (is meshd running there, on that port?)", err)
	}
	return err
}

// due returns up to rejoinWidth addresses to dial now: what was asked for,
// then the missing peers and, while anybody is missing or nobody is there, the
// seeds, in random order.
func (j *joiner) due() []string {
	members := map[string]bool{}
	for _, m := range j.h.ml.Members() {
		members[m.Address()] = true
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	var todo, first []string
	for a := range j.wanted {
		if !members[a.String()] {
			first = append(first, a.String())
		}
	}
	clear(j.wanted)
	for id, p := range j.peers {
		switch {
		case members[p.Addr.String()]:
		case time.Since(p.Seen) > peerMemory:
			delete(j.peers, id)
			j.dirty = true
		default:
			todo = append(todo, p.Addr.String())
		}
	}
	for _, s := range j.h.cfg.Join {
		if !members[s] && s != j.h.Addr().String() && !slices.Contains(todo, s) {
			todo = append(todo, s)
		}
	}
	rand.Shuffle(len(todo), func(a, b int) { todo[a], todo[b] = todo[b], todo[a] })
	now := time.Now()
	due := slices.DeleteFunc(append(first, todo...), func(a string) bool {
		t := j.tries[a]
		return t != nil && now.Before(t.next)
	})
	return due[:min(rejoinWidth, len(due))]
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
			res[i] = JoinResult{Addr: a, Err: errors.Join(ctx.Err())}
		}
		return res
	}
}
