package pool

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/namespace"
	"meshd/lb/nftconn"
	"meshd/lb/sysctl"
)

// routeProtocol marks routes and rules as ours (L1), beside the numbers that
// routing daemons use (/etc/iproute2/rt_protos).
const routeProtocol = 109

// routes leads packets to the pools.
type routes struct{ *shared }

// poolRoute returns the one route that makes every address of the pool local
// (L2), with the source that the own host's clients get.
func (rt *routes) poolRoute(p lb.Pool, table int) (*rtnl.Route, error) {
	lo, err := rt.conn.Routes.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("loopback interface: %w", err)
	}
	r := &rtnl.Route{
		LinkIndex: lo.Attrs().Index, Dst: ipNet(p.Prefix), Table: table,
		Type: unix.RTN_LOCAL, Protocol: routeProtocol, Scope: rtnl.SCOPE_HOST, Family: familyOf(p.Prefix.Addr()),
	}
	if p.Src.IsValid() {
		r.Src = p.Src.AsSlice()
	}
	return r, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// routeMTU returns what the route of a pool says of the size of packets, which
// is that of the device with the source address: the loopback device's would
// make the host send datagrams of 64 KiB in one piece, which must not be cut,
// and which no other device takes. 0 is no word: it is not known, or it is for
// IPv6, where IPVS does not go by it.
func (rt *routes) routeMTU(p lb.Pool) (int, error) {
	if !p.Src.Is4() || !p.Prefix.Addr().Is4() {
		return 0, nil
	}
	addrs, err := rt.conn.Routes.AddrList(nil, unix.AF_INET)
	if err != nil {
		return 0, nftconn.Explain("list addresses", err)
	}
	for _, a := range addrs {
		if have, _ := netip.AddrFromSlice(a.IP); have.Unmap() != p.Src {
			continue
		}
		link, err := rt.conn.Routes.LinkByIndex(a.LinkIndex)
		if err != nil || link.Attrs().Flags&net.FlagLoopback != 0 {
			return 0, nil // gone meanwhile, or of no device that sends
		}
		return link.Attrs().MTU, nil
	}
	return 0, nil
}

// errNoIPv6 says that the namespace has no IPv6 for a pool.
var errNoIPv6 = errors.New("IPv6 is switched off")

// hasIPv6 reports, for a pool of IPv6, whether the device of its route takes
// any. The kernel's own word for that is a lack of permission.
func (rt *routes) hasIPv6(pool netip.Prefix) error {
	if pool.Addr().Is4() {
		return nil
	}
	const key = "net/ipv6/conf/lo/disable_ipv6"
	err := namespace.Inside(rt.cfg.NetNS, func() error {
		off, err := sysctl.Read(key)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("pool %s: %w: this kernel has none (ipv6.disable=1 at boot?); define the network without an "+
				"IPv6 pool", pool, errNoIPv6)
		case err == nil && off != "0":
			return fmt.Errorf("pool %s: %w: sysctl %s=%s; set it to 0, or define the network without an IPv6 pool", pool,
				errNoIPv6, sysctl.Dotted(key), off)
		}
		return err
	})
	return err
}

func (rt *routes) setRoute(p lb.Pool) error {
	r, err := rt.poolRoute(p, poolTable)
	if err != nil {
		return err
	}
	if r.MTU, err = rt.routeMTU(p); err != nil {
		return err
	}
	if err := rt.conn.Routes.RouteReplace(r); err != nil {
		if p.Src.IsValid() && errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("local route of pool %s: %w; source address %s must be configured on this host", p.Prefix, err,
				p.Src)
		}
		return nftconn.Explain(fmt.Sprintf("local route of pool %s", p.Prefix), err)
	}
	return nil
}

func (rt *routes) delRoute(prefix netip.Prefix, table int) error {
	r, err := rt.poolRoute(lb.Pool{Prefix: prefix}, table)
	if err != nil {
		return err
	}
	err = rt.conn.Routes.RouteDel(r)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return nftconn.Explain(fmt.Sprintf("delete local route of pool %s", prefix), err)
}

// listRoutes retries a listing that a concurrent change interrupted.
func (rt *routes) listRoutes(fam int, filter *rtnl.Route) (list []rtnl.Route, err error) {
	for range 5 {
		list, err = rt.conn.Routes.RouteListFiltered(fam, filter, rtnl.RT_FILTER_TABLE|rtnl.RT_FILTER_PROTOCOL)
		if !errors.Is(err, rtnl.ErrDumpInterrupted) {
			return list, err
		}
	}
	return list, err
}

func poolOf(r rtnl.Route) (lb.Pool, bool) {
	if r.Dst == nil || r.Type != unix.RTN_LOCAL {
		return lb.Pool{}, false
	}
	a, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	if !ok {
		return lb.Pool{}, false
	}
	if len(r.Dst.Mask) == net.IPv4len {
		a = a.Unmap()
	}
	p := lb.Pool{Prefix: netip.PrefixFrom(a, bits)}
	if src, ok := netip.AddrFromSlice(r.Src); ok {
		p.Src = src
		if a.Is4() {
			p.Src = src.Unmap()
		}
	}
	return p, true
}
