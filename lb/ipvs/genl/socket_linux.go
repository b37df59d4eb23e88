package genl

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// netlinkSocket is a real socket. It blocks a thread while it waits, at most
// for its timeout: the kernel has answered before send returns, so it hardly
// ever waits.
type netlinkSocket struct{ fd int }

// openSocket opens a socket in the calling thread's network namespace.
func openSocket(timeout time.Duration) (*netlinkSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	s := &netlinkSocket{fd: fd}
	if err := s.prepare(timeout); err != nil {
		_ = s.close()
		return nil, fmt.Errorf("prepare netlink socket: %w", err)
	}
	return s, nil
}

func (s *netlinkSocket) prepare(timeout time.Duration) error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	for _, opt := range [][2]int{{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}} {
		if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, opt[0], socketBuffers) == nil {
			continue
		}
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, opt[1], socketBuffers); err != nil { // up to the system's limit
			return err
		}
	}
	// Errors without a copy of the request; kernels before 4.3 copy it.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return nil
}

func (s *netlinkSocket) send(b []byte) error {
	for {
		err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return err
		}
	}
}

func (s *netlinkSocket) receive(b []byte) (int, error) {
	for {
		n, _, flags, from, err := unix.Recvmsg(s.fd, b, nil, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0, os.ErrDeadlineExceeded
		case err != nil:
			return 0, err
		case flags&unix.MSG_TRUNC != 0:
			return 0, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, len(b))
		}
		if nl, ok := from.(*unix.SockaddrNetlink); ok && nl.Pid == 0 { // only the kernel is believed
			return n, nil
		}
	}
}

func (s *netlinkSocket) close() error { return unix.Close(s.fd) }
