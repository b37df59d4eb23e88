// Package ipvs balances connections with the kernel's IPVS (L7): every
// scheduler, connection counts, and drains by weight.
//
// A service with ports is a virtual service VIP:port; one for all ports is a
// firewall-mark service, fed by one nftables map from VIP to mark (L3). Routes,
// guard, masquerade and marks are nft.Helpers; nothing here needs iptables,
// ipset or a dummy interface (L2).
//
// Only what is ours is touched (L1): virtual services whose address lies in
// one of our pools, and marks that our map hands out.
//
// It works through github.com/moby/ipvs, behind an own probe and a time limit:
// that library reports success on kernels without IPVS, and waits for ever for
// an answer that does not come.
package ipvs

import (
	"log/slog"
	"time"

	"meshd/lb"
)

// Config are the settings of a driver.
type Config struct {
	// NetNS is the path of the network namespace to program (L4); empty means
	// the caller's own. IPVS' services and sysctls belong to the namespace.
	NetNS string
	// Local says that only the namespace's own processes are clients, as in a
	// container (L4): forwarding stays as it is.
	Local bool
	// Log receives what is repaired and what is odd. Required.
	Log *slog.Logger
	// FirstMark is the first of MarkCount firewall marks for services for all
	// ports. A packet's whole mark must be equal, so choose a range that nobody
	// else uses. Default 0x6d000001.
	FirstMark uint32
	// MarkCount is how many services for all ports there can be. Default 65535.
	MarkCount uint32
	// CallLimit is how long the kernel may take to answer. Default 10 s.
	CallLimit time.Duration
}

func (c *Config) setDefaults() {
	if c.FirstMark == 0 {
		c.FirstMark = 0x6d000001
	}
	if c.MarkCount == 0 {
		c.MarkCount = 65535
	}
	if c.CallLimit <= 0 {
		c.CallLimit = 10 * time.Second
	}
}

// Flags of a virtual service (linux/ip_vs.h). The meaning of the last two is
// the scheduler's.
const (
	flagPersistent = 0x01
	flagHashed     = 0x02 // set by the kernel
	flagFallback   = 0x08 // sh, mh: skip servers with weight 0
	flagPort       = 0x10 // sh, mh: hash the source port too
)

// schedulerFlags returns the scheduler's own flags. With them, mh and sh skip
// drained servers. mh hashes the client's port as well, so that an idle
// connection that IPVS has forgotten finds its server again; a service with
// affinity must not tell ports apart.
func schedulerFlags(s *lb.Service) uint32 {
	switch {
	case s.Scheduler == "mh" && s.Affinity == 0:
		return flagFallback | flagPort
	case s.Scheduler == "mh", s.Scheduler == "sh":
		return flagFallback
	}
	return 0
}

// serviceFlags returns flags and persistence timeout of a service, in seconds.
func serviceFlags(s *lb.Service) (flags, timeout uint32) {
	flags = schedulerFlags(s)
	if s.Affinity > 0 {
		flags |= flagPersistent
		timeout = uint32(max(1, s.Affinity/time.Second))
	}
	return flags, timeout
}
