package ipvs

import (
	"net/netip"
	"time"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
	"meshd/state"
)

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

// idOf names a service with ports to the kernel.
func idOf(k lb.Key) genl.ID {
	return genl.ID{Family: genl.FamilyOf(k.VIP), Proto: uint8(k.Proto), Port: k.Port, Addr: k.VIP}
}

// keyOf is the reverse of idOf.
func keyOf(id genl.ID) lb.Key {
	return lb.Key{VIP: id.Addr, Port: id.Port, Proto: state.Proto(id.Proto)}
}

// toService translates a service's settings. An IPv6 service needs a prefix
// length even without affinity.
func toService(s *lb.Service, id genl.ID) genl.Service {
	out := genl.Service{ID: id, Scheduler: s.Scheduler, Flags: schedulerFlags(s), Netmask: 0xffffffff}
	if id.Family == genl.IPv6 {
		out.Netmask = 128
	}
	if s.Affinity > 0 {
		out.Flags |= flagPersistent
		out.Timeout = uint32(max(1, s.Affinity/time.Second))
	}
	return out
}

// oddSettings is added to the name of a scheduler that runs with settings that
// no lb.Service stands for, so that the service is set again.
const oddSettings = "?"

// adoptSettings takes the kernel's settings for s.
func adoptSettings(s *lb.Service, have *genl.Service) {
	s.Scheduler, s.Affinity = have.Scheduler, 0
	if have.Flags&flagPersistent != 0 {
		s.Affinity = time.Duration(have.Timeout) * time.Second
	}
	want := toService(s, have.ID)
	if have.Flags&^flagHashed != want.Flags || have.Flags&flagPersistent != 0 && have.Netmask != want.Netmask {
		s.Scheduler += oddSettings
	}
}

// tellsAll reports whether a line of /proc/net/ip_vs tells all settings of a
// service.
func tellsAll(p *procService) bool {
	return !p.persistent && !p.onePacket && p.scheduler != "mh" && p.scheduler != "sh"
}

// foreignForward is the weight that a backend seems to have whose packets are
// not masqueraded: no backend of ours is like that, so it is set again.
const foreignForward = 1<<32 - 1

// toBackend translates a destination back.
func toBackend(d *genl.Destination) lb.Backend {
	if d.Forward != genl.Masquerade && d.Forward != genl.LocalNode {
		return lb.Backend{Addr: d.Addr, Weight: foreignForward}
	}
	return lb.Backend{Addr: d.Addr, Weight: d.Weight}
}

// backend translates a line back.
func (p *procBackend) backend() lb.Backend {
	if p.forward != "Masq" && p.forward != "Local" {
		return lb.Backend{Addr: p.addr, Weight: foreignForward}
	}
	return lb.Backend{Addr: p.addr, Weight: p.weight}
}

// owned reports whether an address lies in one of the pools.
func owned(pools map[netip.Prefix]lb.Pool, a netip.Addr) bool {
	for p := range pools {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
