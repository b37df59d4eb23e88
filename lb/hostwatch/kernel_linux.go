package hostwatch

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"meshd/lb/hostfacts"
)

// The numbers of routes that are ours (lb/nft): they do not stand against us.
const (
	ownTable    = 109
	ownProtocol = 109
)

// What is kept of a router's tables, and of a host's addresses and the gateways
// of its default routes, is bounded. Beyond it nothing is known of the host.
const (
	maxRoutes    = 1 << 16
	maxAddresses = 1 << 16
	maxGateways  = 1 << 10
)

// readAttempts bounds how often a table that changes is read again.
const readAttempts = 3

// receiveBuffer of the socket that hears of changes. What does not fit is
// missed, and read.
const receiveBuffer = 1 << 20

// kernel is rtnetlink in one network namespace.
type kernel struct {
	ns       netns.NsHandle // -1: the caller's own namespace
	requests *rtnl.Handle
	changes  *netlink.Conn
	within   []netip.Prefix
}

// Open asks the network namespace of that path, or the caller's own for "".
// Only routes that overlap one of the ranges are kept: no pool is elsewhere.
func Open(path string, within []netip.Prefix) (Kernel, error) {
	k := &kernel{ns: netns.None(), within: within}
	cfg := &netlink.Config{Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | ruleGroups}
	var err error
	if path != "" {
		if k.ns, err = netns.GetFromPath(path); err != nil {
			return nil, fmt.Errorf("network namespace %s: %w", path, err)
		}
		cfg.NetNS = int(k.ns)
		k.requests, err = rtnl.NewHandleAt(k.ns, unix.NETLINK_ROUTE)
	} else {
		k.requests, err = rtnl.NewHandle(unix.NETLINK_ROUTE)
	}
	if err == nil {
		err = k.requests.SetSocketTimeout(5 * time.Second)
	}
	if err == nil {
		if k.changes, err = netlink.Dial(unix.NETLINK_ROUTE, cfg); err == nil {
			err = k.changes.SetReadBuffer(receiveBuffer)
		}
	}
	if err != nil {
		_ = k.Close()
		return nil, fmt.Errorf("open netlink sockets: %w", err)
	}
	return k, nil
}

// Close implements Kernel.
func (k *kernel) Close() error {
	var err error
	if k.changes != nil {
		err = k.changes.Close()
	}
	if k.requests != nil {
		k.requests.Close()
	}
	if k.ns.IsOpen() {
		err = errors.Join(err, k.ns.Close())
	}
	return err
}

// Wait implements Kernel.
func (k *kernel) Wait() (ours bool, err error) {
	all, err := k.changes.Receive()
	return slices.ContainsFunc(all, endsOurs), err
}

// Read implements Kernel.
func (k *kernel) Read() (hostfacts.Facts, error) {
	var f hostfacts.Facts
	var err error
	for range readAttempts {
		f = hostfacts.Facts{}
		if err = k.read(&f); !errors.Is(err, rtnl.ErrDumpInterrupted) {
			break
		}
	}
	f.Sort()
	return f, err
}

func (k *kernel) read(f *hostfacts.Facts) error {
	links, err := k.requests.LinkList()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	r := reading{facts: f, within: k.within, devices: make(map[int]device, len(links))}
	for _, l := range links {
		a := l.Attrs()
		r.devices[a.Index] = device{
			name: a.Name, loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
			tunnel: a.RawFlags&(unix.IFF_NOARP|unix.IFF_POINTOPOINT) != 0 && a.RawFlags&unix.IFF_LOOPBACK == 0,
		}
	}
	addrs, err := k.requests.AddrList(nil, unix.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		r.addAddress(&a)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if err := r.readRules(k.requests, family); err != nil {
			return fmt.Errorf("list routing rules: %w", err)
		}
		every := &rtnl.Route{Table: unix.RT_TABLE_UNSPEC}
		err := k.requests.RouteListFilteredIter(family, every, rtnl.RT_FILTER_TABLE, r.addRoute)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
	}
	if r.tooMuch {
		return fmt.Errorf("more than %d routes, %d addresses or %d gateways of default routes", maxRoutes, maxAddresses,
			maxGateways)
	}
	return nil
}

// device is what counts of a link.
type device struct {
	name     string
	loopback bool
	tunnel   bool // what is routed into it are no neighbours
}

// reading collects the facts of one pass.
type reading struct {
	facts      *hostfacts.Facts
	devices    map[int]device
	within     []netip.Prefix
	rulesAhead []rule // of the family that is being read
	tooMuch    bool   // there is more than is kept
}

// address notes an address, and the subnet that it makes: also while its device
// is down, and so has no route.
func (r *reading) addAddress(a *rtnl.Addr) {
	p, ok := prefixOf(a.IPNet)
	if !ok {
		return
	}
	if len(r.facts.Addresses) >= maxAddresses {
		r.tooMuch = true
		return
	}
	d := r.devices[a.LinkIndex]
	r.facts.Addresses = append(r.facts.Addresses, hostfacts.Address{Addr: p.Addr(), Device: d.name, Loopback: d.loopback})
	if peer, ok := prefixOf(a.Peer); ok { // of a point-to-point device
		p = peer
	}
	if a.Flags&unix.IFA_F_NOPREFIXROUTE == 0 && !p.IsSingleIP() {
		r.keepRoute(hostfacts.Route{Prefix: p.Masked(), Device: d.name, Connected: true})
	}
}

// route notes a route that is not ours. It asks for more until there are too
// many.
func (r *reading) addRoute(route rtnl.Route) bool {
	r.addGateways(&route)
	r.addDiverted(&route)
	if r.tooMuch {
		return false
	}
	p, ok := prefixOf(route.Dst)
	if !ok || p.Bits() == 0 || isOurs(&route) || impliedByAddress(&route) {
		return true
	}
	d := r.devices[route.LinkIndex]
	local := route.Gw == nil && route.Via == nil && len(route.MultiPath) == 0 &&
		(route.Type == unix.RTN_UNICAST || route.Type == unix.RTN_LOCAL)
	r.keepRoute(hostfacts.Route{
		Prefix: p.Masked(), Device: d.name,
		Connected: local && (route.Protocol == unix.RTPROT_KERNEL || !d.tunnel),
	})
	return !r.tooMuch
}

// add notes a route where pools may be at all.
func (r *reading) keepRoute(route hostfacts.Route) {
	if !slices.ContainsFunc(r.within, route.Prefix.Overlaps) {
		return
	}
	if len(r.facts.Routes) >= maxRoutes {
		r.tooMuch = true
		return
	}
	r.facts.Routes = append(r.facts.Routes, route)
}

// gateways notes the gateways of a default route.
func (r *reading) addGateways(route *rtnl.Route) {
	if p, ok := prefixOf(route.Dst); ok && p.Bits() > 0 {
		return
	}
	hops := []net.IP{route.Gw}
	for _, hop := range route.MultiPath {
		hops = append(hops, hop.Gw)
	}
	for _, hop := range hops {
		a, ok := netip.AddrFromSlice(hop)
		p := hostfacts.Point{Addr: a.Unmap(), What: "default gateway"}
		switch {
		case !ok || a.IsUnspecified() || slices.Contains(r.facts.Points, p): // or in another table, too
		case len(r.facts.Points) >= maxGateways:
			r.tooMuch = true
			return
		default:
			r.facts.Points = append(r.facts.Points, p)
		}
	}
}

// ours reports whether a route leads to a pool: of this version, or, in table
// local, of an older one. The numbers of tables are nobody's property: what
// others put into ours is theirs.
func isOurs(route *rtnl.Route) bool {
	return route.Protocol == ownProtocol && (route.Table == ownTable || route.Table == unix.RT_TABLE_LOCAL)
}

// implied reports whether the kernel made a route of an address, which is known
// itself.
func impliedByAddress(route *rtnl.Route) bool {
	return route.Protocol == unix.RTPROT_KERNEL && route.Table == unix.RT_TABLE_LOCAL || route.Type == unix.RTN_MULTICAST
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}, false
	}
	if size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits), true
}
