//go:build linux

package rig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// address gives a device an address, at once usable (no duplicate address
// detection). IPv6 addresses are left out on kernels without IPv6.
func (n *Namespace) address(device string, a netip.Addr, bits int) error {
	l, err := n.nl.LinkByName(device)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, bits))}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := n.nl.AddrReplace(l, addr); err != nil && !noIPv6(a, err) {
		return fmt.Errorf("add %s to %s in %s: %w", a, device, n.Name, err)
	}
	return nil
}

// AddAddress gives the host one more address on the switch, such as
// 172.20.0.200.
func (h *Host) AddAddress(a netip.Addr) error {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	return h.address(uplink, a, bits)
}

// route adds a route through eth0.
func (n *Namespace) route(to netip.Prefix, via netip.Addr) error {
	l, err := n.nl.LinkByName(uplink)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(to), Gw: via.AsSlice()}
	if err := n.nl.RouteReplace(r); err != nil && !noIPv6(via, err) {
		return fmt.Errorf("route %s via %s in %s: %w", to, via, n.Name, err)
	}
	return nil
}

func noIPv6(a netip.Addr, err error) bool {
	return a.Is6() && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EACCES))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
