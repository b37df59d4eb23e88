package probe

import (
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/mesh/health"
)

// namespace returns what calls functions on a thread that is in a network namespace of
// its own, which ends with the test.
func namespace(t *testing.T) func(f func() error) error {
	t.Helper()
	calls, made := make(chan func()), make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- err
			return
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		made <- err
		for f := range calls {
			f()
		}
	}()
	if err := <-made; err != nil {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	t.Cleanup(func() { close(calls) })
	return func(f func() error) error {
		done := make(chan error)
		calls <- func() { done <- f() }
		return <-done
	}
}

// A check from inside a sandbox reaches what listens at the sandbox's loopback address
// only, and what listens there on the host is not asked.
func TestChecksFromInside(t *testing.T) {
	inside := namespace(t)
	var l net.Listener
	if err := inside(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:0"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "HTTP/1.0 200 OK\r\n\r\ninside")
			c.Close()
		}
	}()
	to := at(t, l.Addr().String())
	to.Inside = inside
	wants(t, "tcp://,from=sandbox,address=127.0.0.1,expect=inside", to, health.Passed, "inside")
	wants(t, "http://,from=sandbox,address=127.0.0.1", to, health.Passed, "inside")
	outside := serve(t, func(net.Conn) {})
	outside.Inside = inside
	wants(t, "tcp://,from=sandbox,address=127.0.0.1", outside, health.Failed, "refused")
}
