package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Listen opens the name server's sockets on 127.0.0.11 inside the namespace, UDP
// and TCP on one port, and redirects port 53 there. The port is the wanted one if
// that is free, such as the one of an earlier run; otherwise, and for 0, any. Where
// the kernel has no nftables to redirect with, it is port 53 itself.
//
// It takes the loopback device up if it is down, because nothing answers on a
// device that is down.
func (n *Namespace) Listen(want uint16) (*Sockets, error) {
	if err := n.loopbackUp(); err != nil {
		return nil, err
	}
	s, err := n.listen(want)
	if err != nil && want != 0 {
		s, err = n.listen(0)
	}
	if err != nil {
		return nil, err
	}
	err = n.redirect(s.Port)
	if err == nil {
		s.Redirected = true
		return s, nil
	}
	if err = errors.Join(err, s.Close()); !errors.Is(err, errNoRedirect) {
		return nil, err
	}
	s, direct := n.listen(ServerAddr.Port())
	if direct != nil {
		return nil, fmt.Errorf("%w, and %w", err, direct)
	}
	return s, nil
}

func (n *Namespace) listen(port uint16) (*Sockets, error) {
	var s *Sockets
	err := n.Do(func() (err error) {
		s, err = listenBoth(netip.AddrPortFrom(ServerAddr.Addr(), port))
		return err
	})
	return s, err
}

func (n *Namespace) loopbackUp() error {
	h, err := n.routes()
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback device: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("take the loopback device up: %w", err)
	}
	return nil
}

// listenBoth opens both sockets on one port.
func listenBoth(at netip.AddrPort) (*Sockets, error) {
	var last error
	for range 16 { // a port that is free for UDP can be taken for TCP
		p, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return nil, fmt.Errorf("listen udp %s: %w", at, err)
		}
		port := uint16(p.LocalAddr().(*net.UDPAddr).Port)
		l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), port)))
		if err == nil {
			return &Sockets{Packet: p, Stream: l, Port: port}, nil
		}
		last = errors.Join(fmt.Errorf("listen tcp %s: %w", at, err), p.Close())
		if at.Port() != 0 {
			break
		}
	}
	return nil, last
}

// Addrs returns the addresses by which the container is reached: the first
// IPv4 and the first IPv6 one, if any, that are global unicast, not temporary
// and on a device other than the loopback, in the kernel's order of devices.
func (n *Namespace) Addrs() ([]netip.Addr, error) {
	h, err := n.routes()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var all []netip.Addr
	lo, err := h.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("loopback device: %w", err)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := addrList(h, family)
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		for _, a := range list {
			ip, ok := netip.AddrFromSlice(a.IP)
			passing := a.Flags&(unix.IFA_F_TEMPORARY|unix.IFA_F_DEPRECATED|unix.IFA_F_DADFAILED) != 0
			if family == netlink.FAMILY_V4 {
				passing, ip = false, ip.Unmap() // there, that bit means secondary
			}
			if ok && !passing && a.LinkIndex != lo.Attrs().Index {
				all = append(all, ip)
			}
		}
	}
	return firstOf(all), nil
}

// addrList retries a listing that a concurrent change interrupted.
func addrList(h *netlink.Handle, family int) (list []netlink.Addr, err error) {
	for range 5 {
		list, err = h.AddrList(nil, family)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return list, err
}
