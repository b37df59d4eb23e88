//go:build !linux

package resolver

import (
	"errors"
	"net"
)

// newBatchConn needs recvmmsg and sendmmsg.
func newBatchConn(*net.UDPConn, *fastPath, *gate) (net.PacketConn, error) {
	return nil, errors.ErrUnsupported
}
