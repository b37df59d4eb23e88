package hostmend

import (
	"errors"
	"fmt"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Hairpin switches a port's hairpin mode on: the bridge sends packets back through the
// port that they came from. It returns the port for HairpinOff.
func Hairpin(name string) (Port, error) {
	l, err := rtnl.LinkByName(name)
	if err == nil {
		err = rtnl.LinkSetHairpin(l, true)
	}
	if err != nil {
		return Port{}, fmt.Errorf("hairpin mode of port %s: %w", name, err)
	}
	return Port{Name: name, Index: l.Attrs().Index}, nil
}

// HairpinOn reports whether a port exists and is in hairpin mode.
func HairpinOn(p Port) (bool, error) {
	l, err := findPort(p)
	if l == nil || err != nil {
		return false, err
	}
	info, err := rtnl.LinkGetProtinfo(l)
	if err != nil {
		return false, fmt.Errorf("hairpin mode of port %s: %w", p.Name, err)
	}
	return info.Hairpin, nil
}

// HairpinOff switches a port's hairpin mode off. A port that is gone is no error.
func HairpinOff(p Port) error {
	l, err := findPort(p)
	if l != nil && err == nil {
		err = rtnl.LinkSetHairpin(l, false)
	}
	if err != nil {
		return fmt.Errorf("hairpin mode of port %s: %w", p.Name, err)
	}
	return nil
}

// findPort returns the device, or nil if it is gone, or not a port of a bridge any more.
func findPort(p Port) (rtnl.Link, error) {
	l, err := rtnl.LinkByIndex(p.Index)
	var gone rtnl.LinkNotFoundError
	switch {
	case errors.As(err, &gone):
		return nil, nil
	case err != nil:
		return nil, err
	case l.Attrs().Name != p.Name || l.Attrs().MasterIndex == 0:
		return nil, nil
	}
	return l, nil
}

// ResolveAddress makes the kernel ask for the Ethernet address of a neighbour, without
// waiting for the answer.
func ResolveAddress(a netip.Addr) error {
	routes, err := rtnl.RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 || routes[0].Gw != nil {
		return err // not a neighbour
	}
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	return rtnl.NeighSet(&rtnl.Neigh{LinkIndex: routes[0].LinkIndex, Family: family, Flags: unix.NTF_USE, IP: a.AsSlice()})
}
