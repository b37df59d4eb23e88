// Package nft balances connections with nftables alone, for kernels without
// IPVS (L7), and holds the helper rules that both drivers need (L2).
//
// Three tables are ours, and nothing else is touched:
//
//	ip meshd, ip6 meshd  pools, guard, masquerade and, for lb/ipvs, marks: type Helpers
//	inet meshd_nat       the services of this driver: type Driver
//
// The layout of meshd_nat has a constant number of maps (L8). With address
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

import (
	"fmt"
	"log/slog"
	"strings"
)

// Config are the settings of a driver or of Helpers.
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
	OnSysctl func(SysctlChange)
	// Listener hears of changes of the ruleset. May be nil: nobody does.
	Listener Listener
	// Log receives what is repaired and what is odd. Required.
	Log *slog.Logger
}

// Listener hears of changes of the namespace's ruleset (lb/rulewatch), and has to
// tell ours from others'.
type Listener interface {
	// Own is told of the netlink port from which the ruleset is written, before the
	// first write and after the last.
	SetOwnPort(port uint32, open bool)
	// Aside calls write, which commits one transaction at most, while nobody
	// listens: for those who do, the kernel makes a message of every element. From
	// number, which returns that of the ruleset, it knows whether others wrote
	// meanwhile. The error is that of write.
	RunUnsubscribed(number func() (uint32, error), write func() error) error
}

// nobody is the Listener that there is not.
type nobody struct{}

func (nobody) SetOwnPort(uint32, bool)                                            {}
func (nobody) RunUnsubscribed(_ func() (uint32, error), write func() error) error { return write() }

// Sysctl is a kernel setting, as {"net/ipv4/ip_forward", "1"}.
type Sysctl struct {
	Key, Value string
	Optional   bool `json:",omitempty"` // a kernel that does not have it is fine
}

// SysctlChange is a setting of a namespace that was changed, and as what it was
// found, so that it can be put back.
type SysctlChange struct {
	Key   string // as "net/ipv4/ip_forward"
	Found string
	Set   string
	// Along are the settings, of single devices and for redirects, that the kernel
	// changes along when the one for all is put back, and that were otherwise.
	Along []Sysctl `json:",omitempty"`
}

// String formats the change for people, as "net.ipv4.ip_forward=1 (was 0)".
func (c SysctlChange) String() string {
	return fmt.Sprintf("%s=%s (was %s)", dotted(c.Key), c.Set, c.Found)
}

// dotted returns the name of a setting as sysctl(8) writes it. A device's name
// may hold dots, as eth0.100: what sysctl(8) then writes is the key itself.
func dotted(key string) string {
	if strings.Contains(key, ".") {
		return key
	}
	return strings.ReplaceAll(key, "/", ".")
}

// FirstMark with numbers in MarkBits are the firewall marks of services for all
// ports (L3). They leave out 0x4000 and 0x8000, kube-proxy's bits for what it
// masquerades and what it drops: its rules see packets on their way out.
const (
	FirstMark = 0x6d000000
	MarkBits  = 0x00ff3fff
)
