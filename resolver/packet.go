package resolver

import "net"

// wrapPacket prepares a listener's UDP socket.
func (s *Server) wrapPacket(_ *Bound, p net.PacketConn) net.PacketConn { return p }
