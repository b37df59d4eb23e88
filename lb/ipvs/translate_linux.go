package ipvs

import (
	"net"
	"net/netip"
	"slices"
	"time"

	mobyipvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/state"
)

// toService translates a service; mark is that of one for all ports, else 0.
func toService(s *lb.Service, mark uint32) *mobyipvs.Service {
	flags, timeout := serviceFlags(s)
	out := &mobyipvs.Service{SchedName: s.Scheduler, Flags: flags, Timeout: timeout, AddressFamily: unix.AF_INET, Netmask: 0xffffffff}
	if s.VIP.Is6() {
		out.AddressFamily, out.Netmask = unix.AF_INET6, 128
	}
	if s.AllPorts() {
		out.FWMark = mark
		return out
	}
	out.Address, out.Protocol, out.Port = s.VIP.AsSlice(), uint16(s.Proto), s.Port
	return out
}

// toDestination translates a backend. Masquerading is flag 0.
func toDestination(b lb.Backend) *mobyipvs.Destination {
	d := &mobyipvs.Destination{
		Address: b.Addr.Addr().AsSlice(), Port: b.Addr.Port(), Weight: int(b.Weight),
		ConnectionFlags: mobyipvs.ConnFwdMasq, AddressFamily: unix.AF_INET,
	}
	if b.Addr.Addr().Is6() {
		d.AddressFamily = unix.AF_INET6
	}
	return d
}

// addrOf returns the address of that family; moby/ipvs may pad it to 16 bytes.
func addrOf(ip net.IP, family uint16) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	if family == unix.AF_INET {
		return a.Unmap()
	}
	return a
}

// fromService translates back. all tells which address a mark belongs to, by
// family; ok is false for a service that is not ours.
func fromService(s *mobyipvs.Service, vips map[markKey]netip.Addr, pools map[netip.Prefix]lb.Pool) (out *lb.Service, ok bool) {
	out = &lb.Service{Scheduler: s.SchedName}
	if s.FWMark != 0 {
		out.VIP, ok = vips[markKey{s.FWMark, s.AddressFamily}]
	} else {
		out.Key = lb.Key{VIP: addrOf(s.Address, s.AddressFamily), Port: s.Port, Proto: state.Proto(s.Protocol)}
		ok = owned(pools, out.VIP)
	}
	if s.Flags&flagPersistent != 0 {
		out.Affinity = time.Duration(s.Timeout) * time.Second
	}
	return out, ok
}

func owned(pools map[netip.Prefix]lb.Pool, a netip.Addr) bool {
	for p := range pools {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// markKey is a mark in one family: the same number may exist in both.
type markKey struct {
	mark   uint32
	family uint16
}

func familyOf(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// fromDestinations translates backends back, sorted.
func fromDestinations(list []*mobyipvs.Destination, family uint16) []lb.Backend {
	out := make([]lb.Backend, 0, len(list))
	for _, d := range list {
		a := netip.AddrPortFrom(addrOf(d.Address, family), d.Port)
		out = append(out, lb.Backend{Addr: a, Weight: uint32(d.Weight)})
	}
	slices.SortFunc(out, func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) })
	return out
}
