package dataplane

import (
	"io"
	"net"
	"net/netip"
	"strings"

	rtnl "github.com/vishvananda/netlink"

	"meshd/state"
	"meshd/test/rig"
)

// narrow lets a host send small packets only to an address, which it says to
// who sends larger ones.
func (s *stage) narrow(h *rig.Host, to netip.Addr) {
	s.Helper()
	const mtu = 1300
	var narrow *rtnl.Route
	must(s.T, h.Do(func() error {
		ways, err := rtnl.RouteGet(to.AsSlice())
		if err != nil {
			return err
		}
		narrow = &rtnl.Route{
			LinkIndex: ways[0].LinkIndex, Gw: ways[0].Gw, Dst: ipNet(netip.PrefixFrom(to, to.BitLen())),
			MTU: mtu,
		}
		return rtnl.RouteAdd(narrow)
	}))
	s.Cleanup(func() { must(s.T, h.Do(func() error { return rtnl.RouteDel(narrow) })) })
}

// What a router says of a packet that is too large must reach the client, or the
// backend, in words of the connection that it knows. The routers are the host of
// the backend and, on the way back, the host that balances.
func findsNarrowWays(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		k := s.real()
		s.accept(2, v.six, 81, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
		s.narrow(k.backends[2].Host, k.backend(2, v.six))
		if !k.local {
			for _, client := range []netip.Addr{
				addrOf(k.far.Addr, k.far.Addr6, v.six),
				addrOf(k.client.Addr, k.client.Addr6, v.six), k.backend(0, v.six),
			} {
				s.narrow(k.host, client)
			}
		}
		at := netip.AddrPortFrom(s.vip(v.six), 81)
		s.program(s.serviceAt(at, v.proto, "wrr", -1, -1, 1))
		text := strings.Repeat("x", 50_000)
		for _, from := range s.w.places() {
			c := s.tcp(from, at)
			go func() { _, _ = io.WriteString(c, text) }()
			if n, err := io.ReadFull(c, make([]byte, len(text))); err != nil {
				s.Errorf("%s got %d bytes back: %v", from, n, err)
			}
		}
	})
}

func addrOf(four, six netip.Addr, v6 bool) netip.Addr {
	if v6 {
		return six
	}
	return four
}
