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

// The numbers of routes that are ours (lb/nft). Pools do not conflict with these.
const (
	ownTable    = 109
	ownProtocol = 109
)

// Bounds of what is kept, since a router may have millions of routes. A host with more
// counts as not known.
const (
	maxRoutes    = 1 << 16
	maxAddresses = 1 << 16
	maxGateways  = 1 << 10
)

// readAttempts bounds how often a list is read that changes meanwhile.
const readAttempts = 3

// receiveBuffer is the size in bytes of the buffer for announcements. When it is full,
// announcements are lost, and everything is read.
const receiveBuffer = 1 << 20

// kernel is rtnetlink in one network namespace.
type kernel struct {
	ns       netns.NsHandle // -1: the caller's own namespace
	requests *rtnl.Handle   // for Read
	changes  *netlink.Conn  // for Wait
	within   []netip.Prefix // ranges in which pools may lie: other routes are not kept
}

// Open opens the network namespace of that path, or the caller's own for "". The
// caller closes it. Only routes that overlap one of the ranges are kept, since pools
// lie nowhere else. The error says which socket could not be opened.
func Open(path string, within []netip.Prefix) (Kernel, error) {
	k := &kernel{ns: netns.None(), within: within}
	cfg := &netlink.Config{
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
			unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | ruleGroups,
	}
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

// read reads everything once.
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

// device is what is needed of a link.
type device struct {
	name     string
	loopback bool
	tunnel   bool // addresses that are routed into it are not neighbours
}

// reading collects the facts of one Read.
type reading struct {
	facts      *hostfacts.Facts
	devices    map[int]device // by index
	within     []netip.Prefix // ranges in which pools may lie
	rulesAhead []rule         // before those of pools, of the family that is being read
	tooMuch    bool           // there is more than is kept
}

// addAddress keeps an address and the subnet that it implies. Its device may be down,
// and then the kernel has no route for the subnet.
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
	if peer, ok := prefixOf(a.Peer); ok { // point-to-point
		p = peer
	}
	if a.Flags&unix.IFA_F_NOPREFIXROUTE == 0 && !p.IsSingleIP() {
		r.keepRoute(hostfacts.Route{Prefix: p.Masked(), Device: d.name, Connected: true})
	}
}

// addRoute keeps a route that is not ours, and returns true until there are too many.
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

// keepRoute keeps a route that overlaps a range in which pools may lie.
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

// addGateways keeps the gateways of a default route.
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
		case !ok || a.IsUnspecified() || slices.Contains(r.facts.Points, p): // known already, from another table
		case len(r.facts.Points) >= maxGateways:
			r.tooMuch = true
			return
		default:
			r.facts.Points = append(r.facts.Points, p)
		}
	}
}

// isOurs reports whether a route is one of a pool, made by this version, or by an older
// one in table local. Routes of others in our table have another protocol, and count
// as theirs.
func isOurs(route *rtnl.Route) bool {
	return route.Protocol == ownProtocol && (route.Table == ownTable || route.Table == unix.RT_TABLE_LOCAL)
}

// impliedByAddress reports whether the kernel made the route for an address, which is
// known itself.
func impliedByAddress(route *rtnl.Route) bool {
	return route.Protocol == unix.RTPROT_KERNEL && route.Table == unix.RT_TABLE_LOCAL || route.Type == unix.RTN_MULTICAST
}

// prefixOf converts an address with its mask; ok: there is one.
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
