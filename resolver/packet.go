package resolver

// This file owns the UDP socket with the fast path before it, packet by packet.
// packet_linux.go does the same in batches.

import (
	"net"
	"net/netip"
)

// wrapPacket puts the fast path before a listener's UDP socket (R6). A socket
// on the unspecified address stays as it is: the library then makes sure that
// a reply leaves from the address that was asked.
func (s *Server) wrapPacket(b *Bound, p net.PacketConn, g *gate) net.PacketConn {
	c, ok := p.(*net.UDPConn)
	if !ok || s.cfg.DisableFast || b.addr.Addr().IsUnspecified() {
		return p
	}
	if batch, err := newBatchConn(c, newFastPath(b), g); err == nil {
		return batch
	}
	return &fastConn{UDPConn: c, fast: newFastPath(b), gate: g}
}

// fastConn is a socket that answers what it can on reading, packet by packet.
type fastConn struct {
	*net.UDPConn
	fast *fastPath
	gate *gate // nil: everybody is served
}

// ReadFrom returns the next packet that the fast path did not answer. It must
// be called from one goroutine.
func (c *fastConn) ReadFrom(buf []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return n, nil, err
		}
		client := from.Addr().Unmap().WithZone("")
		reply, turnedAway := c.turnAway(client, buf, n)
		if !turnedAway {
			reply = c.fast.answer(buf, n, client)
		}
		if reply > 0 {
			// A reply that cannot be sent is lost like any datagram.
			_, _ = c.WriteToUDPAddrPort(buf[:reply], from)
		}
		if reply > 0 || turnedAway {
			continue
		}
		return n, net.UDPAddrFromAddrPort(from), nil
	}
}

// turnAway turns the packet of a client that is not served into its reply. It
// returns the reply's length, which is 0 if there is none, and whether the client
// was turned away.
func (c *fastConn) turnAway(client netip.Addr, buf []byte, n int) (reply int, turnedAway bool) {
	if c.gate == nil {
		return 0, false
	}
	c.gate.begin()
	a := c.gate.admit(client)
	if a == admitted {
		return 0, false
	}
	reply = c.gate.reply(a, buf, n)
	c.gate.counts.flush(c.gate.server.met)
	return reply, true
}
