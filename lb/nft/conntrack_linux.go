package nft

import (
	"errors"
	"maps"
	"net"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/state"
)

// flowKey identifies the connections of one backend of one service in
// conntrack: original destination, and source of the replies.
type flowKey struct {
	vip     netip.AddrPort // port 0: any
	proto   state.Proto
	backend netip.AddrPort // port 0: any
}

// flows is a set of connections to delete. It implements the filter of
// vishvananda/netlink. The zero value is empty.
type flows struct {
	keys map[flowKey]struct{}
}

// add adds the backend's connections of one protocol; 0 is TCP and UDP.
func (f *flows) add(k lb.Key, backend netip.AddrPort, proto state.Proto) {
	if f.keys == nil {
		f.keys = map[flowKey]struct{}{}
	}
	protos := []state.Proto{proto}
	if proto == 0 {
		protos = []state.Proto{state.TCP, state.UDP}
	}
	for _, p := range protos {
		f.keys[flowKey{vip: netip.AddrPortFrom(k.VIP, k.Port), proto: p, backend: backend}] = struct{}{}
	}
}

func (f *flows) join(o *flows) {
	if f.keys == nil {
		f.keys = map[flowKey]struct{}{}
	}
	maps.Copy(f.keys, o.keys)
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f *flows) MatchConntrackFlow(flow *rtnl.ConntrackFlow) bool {
	exact, wide := flowKeys(flow)
	_, ok := f.keys[exact]
	if !ok {
		_, ok = f.keys[wide]
	}
	return ok
}

// flowKeys returns the keys under which a connection may be known: as one of a
// service with ports and as one of a service for all ports.
func flowKeys(flow *rtnl.ConntrackFlow) (exact, wide flowKey) {
	vip, backend := toAddr(flow.Forward.DstIP), toAddr(flow.Reverse.SrcIP)
	exact = flowKey{
		vip: netip.AddrPortFrom(vip, flow.Forward.DstPort), proto: state.Proto(flow.Forward.Protocol),
		backend: netip.AddrPortFrom(backend, flow.Reverse.SrcPort),
	}
	wide = flowKey{vip: netip.AddrPortFrom(vip, 0), proto: exact.proto, backend: netip.AddrPortFrom(backend, 0)}
	return exact, wide
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// delete removes the connections from conntrack, in one pass per family. The
// cost grows with the conntrack table.
func (f *flows) delete(s *sockets) error {
	var errs []error
	for i, fam := range []rtnl.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if !f.has(i) {
			continue
		}
		errs = append(errs, undisturbed(func() error {
			_, err := s.route.ConntrackDeleteFilters(rtnl.ConntrackTable, fam, f)
			return err
		}))
	}
	return errors.Join(errs...)
}

// undisturbed reads a table again if it changed meanwhile, so that nothing is
// missed; not for ever.
func undisturbed(read func() error) (err error) {
	for range 5 {
		if err = read(); !errors.Is(err, rtnl.ErrDumpInterrupted) {
			break
		}
	}
	return err
}

func (f *flows) has(family int) bool {
	for k := range f.keys {
		if familyIndex(k.vip.Addr()) == family {
			return true
		}
	}
	return false
}

// countFlows counts the tracked connections of the services: TCP ones that are
// not closing, and all UDP ones.
func countFlows(s *sockets, usage map[lb.Key]lb.Usage) error {
	var errs []error
	for _, fam := range []rtnl.InetFamily{unix.AF_INET, unix.AF_INET6} {
		var list []*rtnl.ConntrackFlow
		errs = append(errs, undisturbed(func() (err error) {
			list, err = s.route.ConntrackTableList(rtnl.ConntrackTable, fam)
			return err
		}))
		for _, flow := range list {
			countFlow(flow, usage)
		}
	}
	return errors.Join(errs...)
}

// Conntrack states of TCP from which a connection is closing.
const tcpTimeWait = 7

func countFlow(flow *rtnl.ConntrackFlow, usage map[lb.Key]lb.Usage) {
	if tcp, ok := flow.ProtoInfo.(*rtnl.ProtoInfoTCP); ok && tcp.State >= tcpTimeWait {
		return
	}
	exact, wide := flowKeys(flow)
	for _, k := range []flowKey{exact, wide} {
		key := lb.Key{VIP: k.vip.Addr(), Port: k.vip.Port()}
		if key.Port != 0 {
			key.Proto = k.proto
		}
		if u, ok := usage[key]; ok {
			b, counted := u.Backends[k.backend]
			if !counted {
				b.Traffic = lb.NoTraffic()
			}
			b.Active++
			u.Backends[k.backend] = b
		}
	}
}
