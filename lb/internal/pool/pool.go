// Package pool holds what both drivers stand on, on a host or in a container: the pools
// of virtual addresses, the routes that lead to them, the guard that refuses what no
// service takes, the masquerade (L2), and for IPVS the marks of services for all ports
// (L3).
//
// Two tables are ours, ip meshd and ip6 meshd, and nothing else is touched:
//
//	pool, tasks                  sets: the pools' prefixes; where connections to VIPs were led
//	guard, refuse_*, masq        what no service takes; the masquerade
//	marks, served, served_all    for IPVS: marks of services, and what IPVS serves
//	mark_*, unmark_*, …          for IPVS: marks on and off again
//	reset_*, leave_*             for IPVS: TCP that is refused ahead of it
//
// Base is composed of guard, routes and, for IPVS, marks and served, each with its own
// part of the tables; Marked adds what only IPVS needs. They are used by one goroutine
// at a time.
package pool

import (
	"log/slog"

	"meshd/lb/nftconn"
	"meshd/lb/sysctl"
)

// Config are the settings of a driver and of Base.
type Config struct {
	// NetNS is the path of the network namespace to program, as
	// "/proc/1234/ns/net" (L4). Empty means the caller's own, which needs
	// CAP_NET_ADMIN only; a path needs CAP_SYS_ADMIN too.
	NetNS string
	// Local says that only the namespace's own processes are clients, as in a
	// container (L4), or that its administrator sees to forwarding: it stays as it
	// is.
	Local bool
	// OnSysctl is told of each setting of the namespace that was changed. May be
	// nil.
	OnSysctl func(sysctl.Change)
	// Listener hears of changes of the ruleset. May be nil: nobody does.
	Listener nftconn.Listener
	// Log receives what is repaired and what is odd. Required.
	Log *slog.Logger
}

// FirstMark with numbers in MarkBits are the firewall marks of services for all
// ports (L3). They leave out 0x4000 and 0x8000, kube-proxy's bits for what it
// masquerades and what it drops: its rules see packets on their way out.
const (
	FirstMark = 0x6d000000
	MarkBits  = 0x00ff3fff
)
