//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespace is an empty network namespace with lo up. It lives until it is
// closed: the kernel removes all that is in it.
type namespace struct{ file *os.File }

func newNamespace() (*namespace, error) {
	n := &namespace{}
	err := onNewThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if n.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return n, err
}

// path names the namespace for this process.
func (n *namespace) path() string { return fmt.Sprintf("/proc/self/fd/%d", n.file.Fd()) }

func (n *namespace) close() { _ = n.file.Close() }

// do runs f on a thread inside the namespace.
func (n *namespace) do(f func() error) error {
	return onNewThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the namespace: %w", err)
		}
		return f()
	})
}

// onNewThread runs f on a thread that ends with it.
func onNewThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- f()
	}()
	return <-done
}

// inNamespace runs f with a new namespace, which is removed afterwards.
func inNamespace(f func(n *namespace) error) error {
	n, err := newNamespace()
	if err != nil {
		return err
	}
	defer n.close()
	return f(n)
}
