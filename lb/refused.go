package lb

import (
	"log/slog"
	"maps"
	"slices"
	"strings"

	"meshd/lb/hostfacts"
)

// HostFacts says what the host is and needs. Its method may be called from any
// goroutine and does not block.
type HostFacts interface {
	// Facts returns the facts, which must not be changed, and a channel that is
	// closed when they are not true any more.
	Facts() (*hostfacts.Facts, <-chan struct{})
}

// readFacts takes what the host is now. Without a source nothing stands
// against a pool, and nothing ever changes.
func (b *Balancer) readFacts() (changed <-chan struct{}) {
	if b.cfg.Facts == nil {
		return nil
	}
	facts, changed := b.cfg.Facts.Facts()
	b.planner.SetFacts(facts)
	b.full = true
	return changed
}

// Refused returns, by network, what stands against its pools on this host (L9).
// The result must not be changed. It does not block.
func (b *Balancer) Refused() map[string][]hostfacts.Conflict { return *b.refusals.Load() }

// tellRefused tells, when it changes, which networks are not served and why.
func (b *Balancer) tellRefused() {
	before, now := *b.refusals.Load(), b.planner.Refused()
	if maps.EqualFunc(before, now, slices.Equal) {
		return
	}
	after := maps.Clone(now)
	b.refusals.Store(&after)
	for network, against := range after {
		if !slices.Equal(before[network], against) {
			b.cfg.Log.Warn("pool is not served by this host; vip services of the network are answered with their tasks",
				slog.String("network", network), slog.String("against", Against(against)))
			b.cfg.OnRefused(network, against)
		}
	}
	for network := range before {
		if len(after[network]) == 0 {
			b.cfg.Log.Info("nothing stands against the network's pools any more", slog.String("network", network))
			b.cfg.OnRefused(network, nil)
		}
	}
}

// Against formats conflicts for people, as "pool 10.77.0.0/16: route
// 10.77.0.0/24 of device eth0; address 10.77.0.1 of device eth0".
func Against(conflicts []hostfacts.Conflict) string {
	var text []string
	for i, c := range conflicts {
		if i == toldConflicts {
			text = append(text, "and more")
			break
		}
		if i > 0 && c.Pool == conflicts[i-1].Pool {
			text = append(text, c.What)
			continue
		}
		text = append(text, c.String())
	}
	return strings.Join(text, "; ")
}

// toldConflicts bounds a line of a log or a status.
const toldConflicts = 3
