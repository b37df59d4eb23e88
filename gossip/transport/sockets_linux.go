package transport

import "golang.org/x/sys/unix"

// forceSendBuffer goes above the host's net.core.wmem_max, for which the process
// needs CAP_NET_ADMIN. Without it that is the bound.
func forceSendBuffer(fd, size int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size)
}
