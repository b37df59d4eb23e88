package state

import (
	"net/netip"
	"strings"
	"time"
)

// This file owns what the bodies of all kinds of records but endpoints hold.

// VIPClaim is the claim of a service on its virtual addresses. Every node that
// hosts a task of the service carries it verbatim (V2). It is comparable: equal
// values are one claim.
type VIPClaim struct {
	Service string // the record's key, without the "~" of a retreat
	VIP4    netip.Addr
	VIP6    netip.Addr
	Pinned  bool   // chosen by a person
	Birth   uint64 // Lamport time of the first claim
	// Provisional says that the node that claimed the addresses had not compared
	// tables with another one: Birth does not show who was first (V11).
	Provisional bool
}

// SettingsClaim is what a service's hosts last said about how it is served;
// the highest Lamport time wins, then the larger body (S8).
type SettingsClaim struct {
	Settings
	Lamport uint64
}

// NetworkClaim is a carried network definition, or the statement that one was removed.
type NetworkClaim struct {
	NetworkDef
	Removed bool   // the definition of that birth is withdrawn
	Pinned  bool   // stated by a person on this node, not only carried
	Lamport uint64 // of the removal
}

// NodeInfo is what a node says about itself in the global scope.
type NodeInfo struct {
	Boot    uint64 // identifies the life of the process
	Addr    netip.AddrPort
	Version string
	LB      string // driver in use, "none" without one
	Refutes bool   // it writes a beacon when others check whether it lives; false of versions before 0.2
	Targets bool   // it knows ports with targets (L16)
}

// Field tags of the claims' bodies, one space per kind. Never reuse a number.
const (
	tagVIP4 byte = iota + 1
	tagVIP6
	tagPinned
	tagBirth
	tagProvisional

	lastVIPTag = tagProvisional
)

// AppendVIPClaim appends the record body of c; Service is the key.
func AppendVIPClaim(b []byte, c VIPClaim) []byte {
	b = putAddr(b, tagVIP4, c.VIP4)
	b = putAddr(b, tagVIP6, c.VIP6)
	if c.Pinned {
		b = putUint(b, tagPinned, 1)
	}
	if c.Provisional {
		b = putUint(b, tagProvisional, 1)
	}
	return putUint(b, tagBirth, c.Birth)
}

// retreat ends the key of a claim that its carrier keeps besides its current
// one while the service moves away from the address (V5).
const retreat = "~"

// claimService returns the service of the claim with that key.
func claimService(key string) string { return strings.TrimSuffix(key, retreat) }

// ParseVIPClaim decodes the body of a claim from the record with that key: the
// service, and "~" in a retreat (V5).
func ParseVIPClaim(key, body string) (VIPClaim, error) {
	c := VIPClaim{Service: claimService(key)}
	err := eachField(body, func(tag byte, v string) (err error) {
		var n uint64
		switch tag {
		case tagVIP4:
			if c.VIP4, err = fieldTaskAddr(v); err == nil && !c.VIP4.Is4() {
				err = errBody
			}
		case tagVIP6:
			if c.VIP6, err = fieldTaskAddr(v); err == nil && !c.VIP6.Is6() {
				err = errBody
			}
		case tagPinned:
			n, err = fieldUint(v)
			c.Pinned = n != 0
		case tagBirth:
			c.Birth, err = fieldTime(v)
		case tagProvisional:
			n, err = fieldUint(v)
			c.Provisional = n != 0
		}
		return err
	})
	return c, err
}

const (
	tagMode byte = iota + 1
	tagScheduler
	tagAffinity
	tagDrain
	tagLamport
	tagTTL

	lastSettingsTag = tagTTL
)

// AppendSettings appends the record body of c; the service is the key.
func AppendSettings(b []byte, c SettingsClaim) []byte {
	b = putUint(b, tagMode, uint64(c.Mode))
	b = putString(b, tagScheduler, c.Scheduler)
	b = putUint(b, tagAffinity, uint64(c.Affinity/time.Millisecond))
	b = putUint(b, tagDrain, uint64(c.Drain/time.Millisecond))
	b = putUint(b, tagTTL, uint64(c.TTL/time.Second))
	return putUint(b, tagLamport, c.Lamport)
}

// ParseSettings decodes the body of a settings record.
func ParseSettings(body string) (SettingsClaim, error) {
	var c SettingsClaim
	err := eachField(body, func(tag byte, v string) (err error) {
		var n uint64
		switch tag {
		case tagMode:
			n, err = fieldUint(v)
			c.Mode = Mode(min(n, uint64(ModeDNSRR)))
		case tagScheduler:
			if IsScheduler(v) { // else of a newer version: as if none were given
				c.Scheduler = v
			}
		case tagAffinity:
			c.Affinity, err = fieldMillis(v, MaxAffinity)
		case tagDrain:
			c.Drain, err = fieldMillis(v, MaxDrain)
		case tagLamport:
			c.Lamport, err = fieldTime(v)
		case tagTTL:
			n, err = fieldUint(v)
			c.TTL = time.Duration(min(n, uint64(MaxTTL/time.Second))) * time.Second
		}
		return err
	})
	return c, err
}

// fieldTime reads a Lamport time; one that a clock could not go beyond is
// refused (G8).
func fieldTime(v string) (uint64, error) {
	n, err := fieldUint(v)
	if err != nil || n > maxTime {
		return 0, errBody
	}
	return n, nil
}

// fieldMillis reads a duration; one that is too long counts as the longest.
func fieldMillis(v string, longest time.Duration) (time.Duration, error) {
	n, err := fieldUint(v)
	return time.Duration(min(n, uint64(longest/time.Millisecond))) * time.Millisecond, err
}

const (
	tagSubnet4 byte = iota + 1
	tagSubnet6
	tagNetBirth
	tagRemoved
	tagNetPinned
	tagNetLamport
)

// AppendNetwork appends the record body of c; the network is the key.
func AppendNetwork(b []byte, c NetworkClaim) []byte {
	b = putPrefix(b, tagSubnet4, c.Subnet4)
	b = putPrefix(b, tagSubnet6, c.Subnet6)
	b = putUint(b, tagNetBirth, c.Birth)
	if c.Removed {
		b = putUint(b, tagRemoved, 1)
	}
	if c.Pinned {
		b = putUint(b, tagNetPinned, 1)
	}
	return putUint(b, tagNetLamport, c.Lamport)
}

// ParseNetwork decodes the body of a network's definition.
func ParseNetwork(name, body string) (NetworkClaim, error) {
	c, err := readNetwork(name, body)
	if err == nil {
		err = c.NetworkDef.Validate()
	}
	return c, err
}

// readNetwork is ParseNetwork for a body whose definition was found valid before.
func readNetwork(name, body string) (NetworkClaim, error) {
	c := NetworkClaim{NetworkDef: NetworkDef{Name: name}}
	err := eachField(body, func(tag byte, v string) (err error) {
		var n uint64
		switch tag {
		case tagSubnet4:
			c.Subnet4, err = fieldPrefix(v)
		case tagSubnet6:
			c.Subnet6, err = fieldPrefix(v)
		case tagNetBirth:
			c.Birth, err = fieldTime(v)
		case tagRemoved:
			n, err = fieldUint(v)
			c.Removed = n != 0
		case tagNetPinned:
			n, err = fieldUint(v)
			c.Pinned = n != 0
		case tagNetLamport:
			c.Lamport, err = fieldTime(v)
		}
		return err
	})
	return c, err
}

const (
	tagBoot byte = iota + 1
	tagAddr
	tagVersion
	tagLB
	tagStamp
	tagRefutes
	tagTargets
)

// AppendNode appends the record body of n.
func AppendNode(b []byte, n NodeInfo) []byte {
	b = putUint(b, tagBoot, n.Boot)
	if n.Addr.IsValid() {
		b = putField(b, tagAddr, append(n.Addr.Addr().AsSlice(), byte(n.Addr.Port()>>8), byte(n.Addr.Port()))...)
	}
	b = putString(b, tagVersion, n.Version)
	b = putString(b, tagLB, n.LB)
	if n.Refutes {
		b = putUint(b, tagRefutes, 1)
	}
	if n.Targets {
		b = putUint(b, tagTargets, 1)
	}
	return b
}

// parseNode decodes the body of a node's record.
func parseNode(body string) (NodeInfo, error) {
	var n NodeInfo
	err := eachField(body, func(tag byte, v string) (err error) {
		switch tag {
		case tagBoot:
			n.Boot, err = fieldUint(v)
		case tagAddr:
			if len(v) < 2 {
				return errBody
			}
			var a netip.Addr
			if a, err = fieldAddr(v[:len(v)-2]); err == nil {
				n.Addr = netip.AddrPortFrom(a, uint16(v[len(v)-2])<<8|uint16(v[len(v)-1]))
			}
		case tagVersion:
			n.Version = nodeWord(v)
		case tagLB:
			n.LB = nodeWord(v)
		case tagRefutes:
			var k uint64
			k, err = fieldUint(v)
			n.Refutes = k > 0
		case tagTargets:
			var yes uint64
			yes, err = fieldUint(v)
			n.Targets = yes != 0
		}
		return err
	})
	return n, err
}

// maxNodeWord bounds, in bytes, what a node says of itself in words.
const maxNodeWord = 64

// nodeWord leaves out a word that is too long: each node's stands in a table of
// all nodes, as wide as the widest.
func nodeWord(v string) string {
	if len(v) > maxNodeWord {
		return ""
	}
	return v
}

// AppendBeacon appends the body of a beacon: the owner's wall clock, for
// measuring propagation only (S8).
func AppendBeacon(b []byte, stamp time.Duration) []byte { return putUint(b, tagStamp, uint64(stamp)) }

// ParseBeacon returns the owner's wall clock as time since the Unix epoch.
func ParseBeacon(body string) (time.Duration, error) {
	var stamp uint64
	err := eachField(body, func(tag byte, v string) (err error) {
		if tag == tagStamp {
			stamp, err = fieldUint(v)
		}
		return err
	})
	return time.Duration(stamp), err
}

// checkBody reports whether the body of a known kind other than an endpoint is readable.
func checkBody(r Record) (err error) {
	switch r.Kind {
	case KindVIP:
		if err = CheckName(claimService(r.Key)); err == nil {
			_, err = ParseVIPClaim(r.Key, r.Body)
		}
	case KindSettings:
		if err = CheckName(r.Key); err == nil {
			_, err = ParseSettings(r.Body)
		}
	case KindNode:
		_, err = parseNode(r.Body)
	case KindNetwork:
		if err = CheckName(r.Key); err == nil {
			_, err = ParseNetwork(r.Key, r.Body)
		}
	case KindMember:
		err = CheckName(r.Key)
	case KindBeacon:
		_, err = ParseBeacon(r.Body)
	}
	return err
}
