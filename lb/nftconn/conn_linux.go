package nftconn

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// Conn is the netlink sockets of one network namespace. They stay bound to
// it, whichever thread uses them.
type Conn struct {
	Nftables *nftables.Conn // the open transaction; Commit ends it
	Routes   *rtnl.Handle   // routes, rules, links, and conntrack's table

	ns       netns.NsHandle // -1: the caller's own namespace
	port     uint32         // of Nftables
	listener Listener       // of Config; never nil
	queries  *asker
	seen     uint32 // number of the ruleset that we know, because we wrote or read it; 0: of none
}

// Buffer sizes of the nftables socket in bytes: a transaction travels in one
// message, and every part of it is acknowledged.
const (
	sendBuffer    = 32 << 20
	receiveBuffer = 4 << 20
)

// Open opens the sockets.
func Open(cfg Config) (*Conn, error) {
	c := &Conn{ns: netns.None(), listener: cfg.Listener}
	if c.listener == nil {
		c.listener = noListener{}
	}
	opts := []nftables.ConnOption{nftables.AsLasting(), nftables.WithSockOptions(c.prepare)}
	if path := cfg.NetNS; path != "" {
		ns, err := netns.GetFromPath(path)
		if err != nil {
			return nil, fmt.Errorf("network namespace %s: %w", path, err)
		}
		c.ns = ns
		opts = append(opts, nftables.WithNetNSFd(int(ns)))
	}
	var err error
	if c.Nftables, err = nftables.New(opts...); err == nil {
		c.Routes, err = c.openRoute()
	}
	if err == nil {
		c.queries, err = openAsker(max(int(c.ns), 0))
	}
	if err == nil {
		c.listener.SetOwnPort(c.queries.port(), true) // SendBatch writes, too
	}
	if err != nil {
		_ = c.Close()
		return nil, Explain("open netlink sockets", err)
	}
	return c, nil
}

// prepare sets up the nftables socket, and says which one it is.
func (c *Conn) prepare(socket *netlink.Conn) error {
	c.port = socket.PID()
	c.listener.SetOwnPort(c.port, true)
	return errors.Join(socket.SetWriteBuffer(sendBuffer), socket.SetReadBuffer(receiveBuffer))
}

func (c *Conn) openRoute() (*rtnl.Handle, error) {
	if c.ns.IsOpen() {
		return rtnl.NewHandleAt(c.ns, unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	}
	return rtnl.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
}

// Close closes the sockets; what was written stays.
func (c *Conn) Close() error {
	var err error
	if c.port != 0 {
		c.listener.SetOwnPort(c.port, false) // once it is closed, the port may become another process'
	}
	if c.Nftables != nil {
		err = c.Nftables.CloseLasting()
	}
	if c.Routes != nil {
		c.Routes.Close()
	}
	if c.queries != nil {
		c.listener.SetOwnPort(c.queries.port(), false)
		err = errors.Join(err, c.queries.close())
	}
	if c.ns.IsOpen() {
		err = errors.Join(err, c.ns.Close())
	}
	return err
}

// Explain turns the kernel's errno into what an operator can act on; nil stays nil.
func Explain(what string, err error) error {
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
