// Package nft balances connections with nftables alone, for kernels without
// IPVS (L7). It stands on lb/internal/pool, which has the rules that both drivers need (L2).
//
// Its table is inet meshd_nat, which has a constant number of maps (L8). With address
// family F in 4 and 6:
//
//	svcF     VIP . protocol . port         : class
//	epsF     VIP . protocol . port . slot  : backend address . port
//	allF     VIP . protocol                : class                (all ports)
//	allepsF  VIP . protocol . slot         : backend address      (all ports)
//	classF   class                         : goto class chain
//
// A class chain has one rule, which picks a slot, and goes to a chain that
// translates. The way of the first packet of a connection is:
//
//	services4   meta priority set ip daddr . meta l4proto . th dport map @svc4 meta priority vmap @class4
//	rr4_10_0    meta priority set numgen inc mod 10 goto backends4
//	backends4   meta priority set 0 dnat ip to ip daddr . meta l4proto . th dport . meta priority map @eps4
//
// There is one class chain per family, way to pick and number of slots, and for
// round robin up to maxShards of them, so that services of the same size do not
// share a counter until there are many. A weight is a number of slots. Every
// change of a service is one nftables transaction: a connection meets the old
// backends or the new ones, never a half.
//
// What nftables cannot do: it has no connection counts to schedule by, so lc,
// wlc, sed and nq balance like rr; affinity, sh, dh and mh hash the client's
// address over a Maglev table, so a client sticks for as long as its backend is
// there, without a timeout. Established connections live in conntrack and need
// no entry of ours: weight 0 means to leave the maps (L5). At the end of a
// drain the connections that are left are deleted from conntrack, and those of
// UDP at once.
//
// A service without backends has class 0, which no map knows: its packets reach
// the guard, which refuses them, as it refuses every port that is no service.
//
// The maps tell the whole of a service, so that another process can take over:
// what is not the default (scheduler, affinity, weights) is a comment of its
// element, and backends that drain have elements with slot numbers that are
// never picked.
package nft

import "meshd/lb/internal/pool"

// Config are the settings of a driver.
type Config = pool.Config
