//go:build !linux

package resolver

// This file stands in for packet_linux.go where there is no recvmmsg.

import (
	"errors"
	"net"
)

// newBatchConn needs recvmmsg and sendmmsg.
func newBatchConn(*net.UDPConn, *fastPath, *gate) (net.PacketConn, error) {
	return nil, errors.ErrUnsupported
}
