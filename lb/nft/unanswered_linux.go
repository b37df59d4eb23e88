package nft

import (
	"net/netip"
	"time"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
)

// A client that is not answered sends its first segment again, and conntrack
// leads it to the same backend each time. If that is dead, which may be why it
// drains, the client waits until the drain ends. So conntrack forgets such
// connections, and the next attempt meets a backend that lives.

// answerTime is how long a backend has got no new connections when those that
// it has not answered are given up: a living one would have answered. The first
// look at a drain comes after a second.
const answerTime = time.Second / 2

// quietSince returns since when the backends of a service that have weight 0
// have not been picked; old is what was known before.
func quietSince(old map[netip.AddrPort]time.Time, svc *lb.Service, now time.Time) (quiet map[netip.AddrPort]time.Time) {
	for _, b := range svc.Backends {
		if b.Weight > 0 {
			continue
		}
		if quiet == nil {
			quiet = map[netip.AddrPort]time.Time{}
		}
		since, known := old[b.Addr]
		if !known {
			since = now
		}
		quiet[b.Addr] = since
	}
	return quiet
}

// unanswered returns which connections are given up at a time: it is asked for
// the keys of those in state synSent.
func (d *Driver) unanswered(now time.Time) func(conntrack.Key) bool {
	return func(k conntrack.Key) bool {
		e := d.entries[k.Service()]
		if e == nil {
			return false
		}
		since, quiet := e.quiet[k.Backend]
		return quiet && now.Sub(since) >= answerTime
	}
}
