package pool

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
)

// untranslated matches the connections to a pool from before it was ours: they went
// somewhere else untranslated. conntrack remembers that, and a client that goes
// on from the same port, as with UDP, would never reach a service.
type untranslated struct{ pool netip.Prefix }

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (u untranslated) MatchConntrackFlow(flow *rtnl.ConntrackFlow) bool {
	vip := address(flow.Forward.DstIP)
	return u.pool.Contains(vip) && address(flow.Reverse.SrcIP) == vip
}

// forgetUntranslated makes conntrack forget them, once, when the pool becomes ours:
// not at every start, since it looks at the whole table.
func (b *Base) forgetUntranslated(pool netip.Prefix) {
	forgotten := uint(0)
	for range dumpAttempts {
		n, err := b.conn.Routes.ConntrackDeleteFilters(rtnl.ConntrackTable, rtnl.InetFamily(familyOf(pool.Addr())),
			untranslated{pool})
		forgotten += n
		if errors.Is(err, rtnl.ErrDumpInterrupted) {
			continue // the table changed meanwhile: something may have been missed
		}
		if err != nil {
			b.cfg.Log.Warn("connections from before a pool was ours may go nowhere until they time out", slog.Any("pool", pool),
				slog.Any("error", err))
		}
		break
	}
	if forgotten > 0 {
		b.cfg.Log.Info("forgot connections from before a pool was ours", slog.Any("pool", pool),
			slog.Uint64("connections", uint64(forgotten)))
	}
}

// dumpAttempts bounds how often a table that changes is read again.
const dumpAttempts = 3

// address returns one of a connection.
func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
