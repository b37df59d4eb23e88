package holder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"meshd/lb/internal/namespace"
)

// name is that of an abstract unix socket: the kernel keeps such names for each
// network namespace, and frees them when the process ends.
const name = "@meshd-load-balancing"

// The bounds of asking who holds a namespace.
const (
	attempts = 3           // the holder may end in between
	askTime  = time.Second // for its name
)

// take binds the name in the namespace. A name that somebody took who may not
// program the kernel, so that nobody could, is no hold.
func take(path string) (closer, error) {
	var held *hold
	err := namespace.Inside(path, func() (err error) {
		for range attempts {
			if held, err = bind(); err == nil || !errors.Is(err, unix.EADDRINUSE) {
				return nil // what keeps us from asking keeps nobody from balancing
			}
			pid, taken := owner()
			if taken {
				return fmt.Errorf("%w: process %d has it", ErrTaken, pid)
			}
		}
		return nil
	})
	if held == nil {
		return nil, err
	}
	return held, err
}

// hold is a bound name.
type hold struct{ listener net.Listener }

func bind() (*hold, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", name)
	if err != nil {
		return nil, err
	}
	h := &hold{listener: l}
	go h.answer()
	return h, nil
}

// answer lets whoever asks see whose the name is, which the kernel tells: so
// that nobody can fill the queue of those who ask.
func (h *hold) answer() {
	for {
		c, err := h.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(askTime) // no descriptors
			continue
		}
		_ = c.Close()
	}
}

// Close lets go of the name.
func (h *hold) Close() error { return h.listener.Close() }

// owner asks the kernel who bound the name. Only root and the own user count:
// anybody else may take names too.
func owner() (pid int32, taken bool) {
	c, err := (&net.Dialer{Timeout: askTime}).Dial("unix", name)
	if err != nil {
		return 0, false
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, false
	}
	var peer *unix.Ucred
	if raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET,
			unix.SO_PEERCRED)
	}) != nil || err != nil {
		return 0, false
	}
	return peer.Pid, peer.Uid == 0 || int(peer.Uid) == os.Geteuid()
}
