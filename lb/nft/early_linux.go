package nft

import (
	"errors"
	"log/slog"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
)

// early matches the connections to a pool from before it was ours: they went
// somewhere else untranslated. conntrack remembers that, and a client that goes
// on from the same port, as with UDP, would never reach a service.
type early struct{ pool netip.Prefix }

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (e early) MatchConntrackFlow(flow *rtnl.ConntrackFlow) bool {
	vip := toAddr(flow.Forward.DstIP)
	return e.pool.Contains(vip) && toAddr(flow.Reverse.SrcIP) == vip
}

// forgetEarly makes conntrack forget them, once, when the pool becomes ours:
// not at every start, since it looks at the whole table.
func (h *Helpers) forgetEarly(pool netip.Prefix) {
	forgotten := uint(0)
	for range dumpAttempts {
		n, err := h.sock.route.ConntrackDeleteFilters(rtnl.ConntrackTable, rtnl.InetFamily(familyOf(pool.Addr())),
			early{pool})
		forgotten += n
		if errors.Is(err, rtnl.ErrDumpInterrupted) {
			continue // the table changed meanwhile: something may have been missed
		}
		if err != nil {
			h.cfg.Log.Warn("connections from before a pool was ours may go nowhere until they time out", slog.Any("pool", pool),
				slog.Any("err", err))
		}
		break
	}
	if forgotten > 0 {
		h.cfg.Log.Info("forgot connections from before a pool was ours", slog.Any("pool", pool),
			slog.Uint64("connections", uint64(forgotten)))
	}
}

// dumpAttempts bounds how often a table that changes is read again.
const dumpAttempts = 3
