package nft

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// sockets are the netlink sockets of one network namespace. They stay bound to
// it from whatever thread they are used.
type sockets struct {
	ns    netns.NsHandle // -1: the caller's own namespace
	nft   *nftables.Conn
	route *rtnl.Handle

	port     uint32   // of nft
	listener Listener // of Config; never nil

	queries *asker
	seen    uint32 // number of the ruleset that we know, because we wrote or read it; 0: of none
}

// Buffer sizes of the nftables socket in bytes: a transaction travels in one
// message, and every part of it is acknowledged.
const (
	sendBuffer    = 32 << 20
	receiveBuffer = 4 << 20
)

func openSockets(cfg *Config) (*sockets, error) {
	s := &sockets{ns: netns.None(), listener: cfg.Listener}
	if s.listener == nil {
		s.listener = nobody{}
	}
	opts := []nftables.ConnOption{nftables.AsLasting(), nftables.WithSockOptions(s.prepare)}
	if path := cfg.NetNS; path != "" {
		ns, err := netns.GetFromPath(path)
		if err != nil {
			return nil, fmt.Errorf("network namespace %s: %w", path, err)
		}
		s.ns = ns
		opts = append(opts, nftables.WithNetNSFd(int(ns)))
	}
	var err error
	if s.nft, err = nftables.New(opts...); err == nil {
		s.route, err = s.openRoute()
	}
	if err == nil {
		s.queries, err = openAsker(max(int(s.ns), 0))
	}
	if err == nil {
		s.listener.SetOwnPort(s.queries.port(), true) // sendBatch writes, too
	}
	if err != nil {
		_ = s.close()
		return nil, explain("open netlink sockets", err)
	}
	return s, nil
}

// prepare sets up the nftables socket, and says which one it is.
func (s *sockets) prepare(c *netlink.Conn) error {
	s.port = c.PID()
	s.listener.SetOwnPort(s.port, true)
	return errors.Join(c.SetWriteBuffer(sendBuffer), c.SetReadBuffer(receiveBuffer))
}

func (s *sockets) openRoute() (*rtnl.Handle, error) {
	if s.ns.IsOpen() {
		return rtnl.NewHandleAt(s.ns, unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	}
	return rtnl.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
}

func (s *sockets) close() error {
	var err error
	if s.port != 0 {
		s.listener.SetOwnPort(s.port, false) // once it is closed, the port may be somebody else's
	}
	if s.nft != nil {
		err = s.nft.CloseLasting()
	}
	if s.route != nil {
		s.route.Close()
	}
	if s.queries != nil {
		s.listener.SetOwnPort(s.queries.port(), false)
		err = errors.Join(err, s.queries.close())
	}
	if s.ns.IsOpen() {
		err = errors.Join(err, s.ns.Close())
	}
	return err
}

// Inside calls f on a thread that is inside the network namespace: sysctls
// belong to the namespace of the thread that opens the file.
func Inside(path string, f func() error) error {
	if path == "" {
		return f()
	}
	done := make(chan error, 1)
	go func() { done <- inside(path, f) }()
	return <-done
}

// inside takes the thread to the namespace and back. A thread that cannot go
// back is not used again: it ends with its goroutine, but for the first one,
// which would hold the namespace for as long as the process lives.
func inside(path string, f func() error) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer ns.Close()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("network namespace of the thread: %w", err)
	}
	defer home.Close()
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return explain("enter network namespace "+path, err)
	}
	defer func() {
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// explain turns the kernel's errno into what an operator can act on.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: no CAP_NET_ADMIN (%s: %w); run as root or grant the capability", lb.ErrUnsupported, what, err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: kernel has no nfnetlink (%s: %w); load nf_tables", lb.ErrUnsupported, what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
