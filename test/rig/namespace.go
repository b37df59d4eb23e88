//go:build linux

package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is one network namespace. Its methods may be called from several
// goroutines at once.
type Namespace struct {
	Name string

	rig  *Rig
	file *os.File        // keeps the namespace alive
	nl   *netlink.Handle // speaks to the kernel from inside it
}

// newNamespace makes an empty network namespace with lo up.
func newNamespace(r *Rig, name string) (*Namespace, error) {
	n := &Namespace{Name: name, rig: r}
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			n.file, err = os.Open(threadNetNS)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	n.nl, err = netlink.NewHandleAt(netns.NsHandle(n.file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		_ = n.file.Close()
		return nil, fmt.Errorf("open netlink in %s: %w", name, err)
	}
	if err := errors.Join(n.up("lo"), n.quickIPv6()); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// quickIPv6 makes IPv6 addresses usable at once, on kernels that have IPv6.
func (n *Namespace) quickIPv6() error {
	err := n.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (n *Namespace) close() {
	n.nl.Close()
	_ = n.file.Close()
}

// Path names the namespace to programs that enter it themselves, as those of
// this process can for as long as the rig is there.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

const threadNetNS = "/proc/thread-self/ns/net"

// onThread runs f on a thread that f may move to another network namespace,
// and takes the thread back afterwards; a thread that cannot be taken back is
// ended.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(threadNetNS)
		if err != nil {
			done <- err
			return
		}
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		_ = home.Close()
		done <- err
	}()
	return <-done
}

// Do runs f on a thread inside the namespace. Sockets that f itself opens, and
// processes it starts, belong to the namespace; goroutines that it starts do
// not run there.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", n.Name, err)
		}
		return f()
	})
}

// Dial connects to a literal address from inside the namespace. It has the
// shape that [net/http.Transport] wants.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := n.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen opens a TCP listener on a literal address inside the namespace.
func (n *Namespace) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var l net.Listener
	err := n.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a UDP socket on a literal address inside the namespace.
func (n *Namespace) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var c net.PacketConn
	err := n.Do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return c, err
}

// Sysctl sets a kernel parameter of the namespace, such as
// "net.ipv4.ip_forward".
func (n *Namespace) Sysctl(key, value string) error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	return n.Do(func() error { return os.WriteFile(path, []byte(value), 0o644) })
}

// LinkDown takes a device of the namespace down, as a pulled cable does.
func (n *Namespace) LinkDown(device string) error {
	return n.link(device, n.nl.LinkSetDown)
}

// LinkUp takes a device up again. The kernel has dropped the routes through it
// meanwhile: hosts get theirs back.
func (n *Namespace) LinkUp(device string) error { return n.up(device) }

func (n *Namespace) up(device string) error { return n.link(device, n.nl.LinkSetUp) }

func (n *Namespace) link(device string, do func(netlink.Link) error) error {
	l, err := n.nl.LinkByName(device)
	if err == nil {
		err = do(l)
	}
	if err != nil {
		return fmt.Errorf("%s in %s: %w", device, n.Name, err)
	}
	return nil
}
