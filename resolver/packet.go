package resolver

import (
	"net"
	"net/netip"
)

// wrapPacket puts the fast path before a listener's UDP socket (R6). A socket
// on the unspecified address stays as it is: the library then sees to it that
// a reply leaves from the address that was asked.
func (s *Server) wrapPacket(b *Bound, p net.PacketConn) net.PacketConn {
	c, ok := p.(*net.UDPConn)
	if !ok || s.cfg.DisableFast || b.addr.Addr().IsUnspecified() {
		return p
	}
	if batch, err := newBatchConn(c, newFastPath(b)); err == nil {
		return batch
	}
	return &fastConn{UDPConn: c, fast: newFastPath(b)}
}

// fastConn is a socket that answers what it can on reading, packet by packet.
type fastConn struct {
	*net.UDPConn
	fast *fastPath
}

// ReadFrom returns the next packet that the fast path did not answer. It must
// be called from one goroutine.
func (c *fastConn) ReadFrom(buf []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return n, nil, err
		}
		client := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if reply := c.fast.answer(buf, n, client.Addr()); reply > 0 {
			// A reply that cannot be sent is lost like any datagram.
			_, _ = c.WriteToUDPAddrPort(buf[:reply], from)
			continue
		}
		return n, net.UDPAddrFromAddrPort(from), nil
	}
}
