//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/nft"

	"meshd/test/rig"
)

// Addresses of the client's host and of the servers on the host beside it.
var (
	clientAddr = netip.MustParsePrefix("10.1.0.1/24")
	serverAddr = [...]netip.Prefix{
		netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("10.1.0.3/24"),
		netip.MustParsePrefix("10.1.0.4/24"), netip.MustParsePrefix("10.1.0.5/24"),
	}
)

// Sizes in bytes of what a client asks and of what it gets.
const (
	requestSize = 64
	answerSize  = 512
)

// hosts are a client's host and a server's host, one link between them.
type hosts struct {
	client, server *namespace
	stop           func()
}

func newHosts() (*hosts, error) {
	client, err := newNamespace()
	if err != nil {
		return nil, err
	}
	server, err := newNamespace()
	if err != nil {
		client.close()
		return nil, err
	}
	h := &hosts{client: client, server: server, stop: func() {}}
	err = client.do(func() error {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0",
			PeerNamespace: netlink.NsFd(netns.NsHandle(server.file.Fd())),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return addresses(clientAddr)
	})
	if err == nil {
		err = server.do(func() error { return addresses(serverAddr[:]...) })
	}
	if err == nil {
		err = h.serve()
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *hosts) close() {
	h.stop()
	h.client.close()
	h.server.close()
}

func addresses(list ...netip.Prefix) error {
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, p := range list {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if err := netlink.AddrAdd(l, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// serve answers on all addresses of the server's host.
func (h *hosts) serve() error {
	var l net.Listener
	err := h.server.do(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", backendPort))
		return err
	})
	if err != nil {
		return err
	}
	h.stop = func() { _ = l.Close() }
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c)
		}
	}()
	return nil
}

func answer(c net.Conn) {
	defer c.Close()
	in, out := make([]byte, requestSize), make([]byte, answerSize)
	for {
		if _, err := io.ReadFull(c, in); err != nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// target is one way to the servers.
type target struct {
	driver, path string
	hosts        *hosts
	addr         netip.AddrPort
	services     int // programmed on the client's host
}

// requests measures three ways in turns: between hosts without any rule, beside
// the VIPs on a host that has many, and through a VIP of it.
func (b *bench) requests() error {
	services := 10000
	if b.quick {
		services = 100
	}
	plain, err := newHosts()
	if err != nil {
		return err
	}
	defer plain.close()
	balanced, err := newHosts()
	if err != nil {
		return err
	}
	defer balanced.close()
	d, err := nft.New(nft.Config{NetNS: balanced.client.path(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer d.Close()
	vip, err := b.balance(d, services)
	if err != nil {
		return err
	}
	direct := netip.AddrPortFrom(serverAddr[0].Addr(), backendPort)
	targets := []target{
		{"none", "direct", plain, direct, 0},
		{"nft", "direct", balanced, direct, services},
		{"nft", "vip", balanced, vip, services},
	}
	for _, clients := range []int{1, 16} {
		for _, kind := range []string{"request", "connect"} {
			if err := b.compare(targets, kind, clients); err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
		}
	}
	return nil
}

// balance programs many services, and one in front of the servers.
func (b *bench) balance(d lb.Driver, services int) (vip netip.AddrPort, err error) {
	if err := start(b.ctx, d, clientAddr.Addr()); err != nil {
		return vip, err
	}
	want := table(services, len(serverAddr))
	k := key(services / 2)
	s := *want.Services[k]
	s.Backends = nil
	for _, a := range serverAddr {
		s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrPortFrom(a.Addr(), backendPort), Weight: 1})
	}
	want.Services[k] = &s
	return netip.AddrPortFrom(k.VIP, k.Port), apply(b.ctx, d, lb.Diff(lb.NewTable(), want, lb.Policy{}))
}

// compare measures the targets in turns, in an order that changes, so that
// what else the machine does falls on all of them.
func (b *bench) compare(targets []target, kind string, clients int) error {
	rounds, span := 30, 300*time.Millisecond
	if b.quick {
		rounds, span = 3, 100*time.Millisecond
	}
	times := make([][]time.Duration, len(targets))
	rng := rand.New(rand.NewPCG(1, 1))
	for range rounds {
		for _, i := range rng.Perm(len(targets)) {
			if b.ctx.Err() != nil {
				return b.ctx.Err()
			}
			got, err := targets[i].run(kind, clients, span)
			if err != nil {
				return fmt.Errorf("%s %s: %w", targets[i].driver, targets[i].path, err)
			}
			times[i] = append(times[i], got...)
		}
	}
	for i, t := range targets {
		slices.Sort(times[i])
		perSecond := float64(len(times[i])) / (float64(rounds) * span.Seconds())
		fmt.Printf("lb driver=%s path=%s op=%s services=%d clients=%d p50_us=%s p99_us=%s per_s=%.0f n=%d load1=%s\n",
			t.driver, t.path, kind, t.services, clients, us(times[i], 0.5), us(times[i], 0.99), perSecond, len(times[i]),
			rig.LoadAverage())
	}
	return nil
}

func us(sorted []time.Duration, q float64) string {
	if len(sorted) == 0 {
		return "nan"
	}
	return fmt.Sprintf("%.1f", float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)])/float64(time.Microsecond))
}

// run asks for a while, over one connection per client ("request") or over a
// new one each time ("connect"), and returns how long each took.
func (t *target) run(kind string, clients int, span time.Duration) ([]time.Duration, error) {
	var wait sync.WaitGroup
	times, errs := make([][]time.Duration, clients), make([]error, clients)
	until := time.Now().Add(span)
	for i := range clients {
		wait.Go(func() {
			runtime.LockOSThread() // never unlocked: it stays in the namespace
			if errs[i] = unix.Setns(int(t.hosts.client.file.Fd()), unix.CLONE_NEWNET); errs[i] != nil {
				return
			}
			c := client{addr: unix.SockaddrInet4{Port: int(t.addr.Port()), Addr: t.addr.Addr().As4()}}
			times[i], errs[i] = c.run(kind == "connect", until)
		})
	}
	wait.Wait()
	return slices.Concat(times...), errors.Join(errs...)
}

// client asks with blocking system calls, so that no scheduler but the
// kernel's is part of what is measured.
type client struct {
	addr unix.SockaddrInet4
	in   [answerSize]byte
	out  [requestSize]byte
}

func (c *client) run(anew bool, until time.Time) (times []time.Duration, err error) {
	fd := -1
	defer func() {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}()
	for time.Now().Before(until) {
		start := time.Now()
		if fd < 0 {
			if fd, err = c.connect(); err != nil {
				return nil, err
			}
			if !anew {
				start = time.Now()
			}
		}
		if err := c.ask(fd); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
		if anew {
			_ = unix.Close(fd)
			fd = -1
		}
	}
	return times, nil
}

// connect opens a connection that ends with a reset, so that its port is free
// again at once.
func (c *client) connect() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	patience := unix.NsecToTimeval(int64(5 * time.Second))
	err = errors.Join(
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience))
	if err == nil {
		err = again(func() error { return unix.Connect(fd, &c.addr) })
	}
	if err != nil && !errors.Is(err, unix.EISCONN) {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

func (c *client) ask(fd int) error {
	err := again(func() error {
		_, err := unix.Write(fd, c.out[:])
		return err
	})
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	for got := 0; got < len(c.in); {
		n := 0
		err := again(func() (err error) {
			n, err = unix.Read(fd, c.in[got:])
			return err
		})
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		got += n
	}
	return nil
}

// again repeats a system call that a signal interrupts: Go's scheduler sends some.
func again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
