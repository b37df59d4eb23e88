package resolver

// This file owns questions that wait for the first sync of a network (R4).

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"meshd/state"
)

// held answers an unknown local name again until it is known, its networks
// have had their first sync, or HoldTime is over (R4). At most HoldMax
// questions wait, and of one client at most its share; more get their answer at
// once.
func (s *Server) held(ctx context.Context, client netip.Addr, q zoneQuery, r zoneResult) zoneResult {
	if s.cfg.HoldTime < 0 {
		return r
	}
	share := s.cfg.HoldClient * shares(client)
	if client.IsLoopback() {
		share = max(share, s.cfg.HoldMax/2) // a server there may ask for many
	}
	if !s.holding.take(client, share, s.cfg.HoldMax) {
		s.met.count(countHeldFull)
		return r
	}
	defer s.holding.leave(client)
	s.met.count(countHeld)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HoldTime)
	defer cancel()
	wake := watch(ctx, r.Waiting)
	for len(r.Waiting) > 0 {
		// Answer again before waiting too: the change may precede the watch.
		if r = s.zone.answer(q); len(r.Waiting) == 0 {
			break
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return r
		}
	}
	return r
}

// holds counts the questions that wait, per client.
type holds struct {
	mu      sync.Mutex // guards what follows
	n       int
	clients map[netip.Addr]int
}

func (h *holds) take(client netip.Addr, share, all int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n >= all || h.clients[client] >= share {
		return false
	}
	h.n++
	h.clients[client]++
	return true
}

func (h *holds) leave(client netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n--
	if h.clients[client]--; h.clients[client] == 0 {
		delete(h.clients, client)
	}
}

// watch signals when one of the views changes, until ctx is done.
func watch(ctx context.Context, views []state.View) <-chan struct{} {
	wake := make(chan struct{}, 1)
	for _, v := range views {
		sub := v.Subscribe()
		go func() {
			defer sub.Close()
			for {
				select {
				case <-ctx.Done():
					return
				case <-sub.Ready():
					sub.Drain()
					signal(wake)
				}
			}
		}()
	}
	return wake
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// since is the age of t in a form that the metrics take.
func since(t time.Time) time.Duration { return max(0, time.Since(t)) }
