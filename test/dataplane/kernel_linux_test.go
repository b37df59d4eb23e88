package dataplane

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"meshd/state"
	"meshd/test/rig"
)

var (
	pool4 = netip.MustParsePrefix("10.96.0.0/16")
	pool6 = netip.MustParsePrefix("fd96::/64")
)

// patience bounds every wait: go test ./test/dataplane -args -patience 5s. It is
// long because an emulated machine is slow.
var patience = flag.Duration("patience", time.Minute, "bounds every wait")

// kernel is the part of the worlds with a real kernel that does not depend on
// the driver.
type kernel struct {
	rig       *rig.Rig
	local     bool           // the container of backend 0 balances, for itself
	box       *rig.Namespace // that balances
	host      *rig.Host
	client    *rig.Task
	far       *rig.Host
	backends  [4]*rig.Task
	addresses [2][]netip.Addr // of the client, by family
}

// newKernel makes the hosts. With local, it is not host1 that balances, but the
// container of backend 0, for its own processes (L4): it is every client.
func newKernel(t *testing.T, local bool) *kernel {
	t.Helper()
	k := &kernel{rig: rig.NewTest(t, 3), local: local}
	hosts := k.rig.Hosts()
	k.host, k.far = hosts[0], hosts[2]
	k.client = k.task(t, k.host, "client")
	for i := range k.backends {
		k.backends[i] = k.task(t, hosts[i/2], fmt.Sprintf("backend%d", i))
		for _, six := range []bool{false, true} {
			for _, port := range []uint16{80, 443} {
				serve(t, k.backends[i].Namespace, netip.AddrPortFrom(k.backend(i, six), port))
			}
		}
	}
	k.box = k.host.Namespace
	if local {
		k.box, k.client = k.backends[0].Namespace, k.backends[0]
	}
	for _, six := range []bool{false, true} {
		serve(t, k.box, netip.AddrPortFrom(k.node(six), portOfHost))
	}
	// A service of its own, which no VIP may lead to.
	serve(t, k.box, netip.AddrPortFrom(netip.IPv6Unspecified(), 22))
	for _, p := range []netip.Prefix{pool4, pool6} {
		k.routeToPool(t, p)
	}
	k.addAddresses(t)
	for _, s := range []string{"net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"} {
		if err := k.box.Sysctl(s, "0"); err != nil { // UDP is refused in bursts here; TCP by resets, which have no limit
			t.Fatal(err)
		}
	}
	return k
}

func (k *kernel) task(t *testing.T, h *rig.Host, name string) *rig.Task {
	t.Helper()
	task, err := h.AddTask(name)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// routeToPool makes the remote client reach the VIPs through the host.
func (k *kernel) routeToPool(t *testing.T, p netip.Prefix) {
	t.Helper()
	via := k.host.Addr
	if p.Addr().Is6() {
		via = k.host.Addr6
	}
	must(t, k.far.Do(func() error {
		return rtnl.RouteAdd(&rtnl.Route{
			Dst: ipNet(p), Gw: via.AsSlice(),
		})
	}))
}

// addAddresses gives the client more addresses: many clients to a hash.
func (k *kernel) addAddresses(t *testing.T) {
	t.Helper()
	k.addresses = [2][]netip.Addr{{k.client.Addr}, {k.client.Addr6}}
	must(t, k.client.Do(func() error {
		link, err := rtnl.LinkByName("eth0")
		if err != nil {
			return err
		}
		for i := range addressesOfClient {
			for family, own := range []netip.Addr{k.client.Addr, k.client.Addr6} {
				raw := own.AsSlice()
				raw[len(raw)-1] = byte(101 + i)
				a, _ := netip.AddrFromSlice(raw)
				k.addresses[family] = append(k.addresses[family], a)
				addr := &rtnl.Addr{
					IPNet: &net.IPNet{IP: raw, Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Flags: unix.IFA_F_NODAD,
					ValidLft: math.MaxInt32, PreferedLft: 0, // never chosen as a source
				}
				if err := rtnl.AddrAdd(link, addr); err != nil {
					return fmt.Errorf("%s: %w", a, err)
				}
			}
		}
		return nil
	}))
}

func (k *kernel) node(six bool) netip.Addr {
	if k.local {
		return k.backend(0, six)
	}
	if six {
		return k.host.Addr6
	}
	return k.host.Addr
}

func (k *kernel) backend(i int, six bool) netip.Addr {
	if six {
		return k.backends[i].Addr6
	}
	return k.backends[i].Addr
}

// seenAs implements world: the masquerade takes the address that the host has
// towards the backend.
func (k *kernel) seenAs(i int, six bool) netip.Addr {
	if k.local || k.backends[i].Host != k.host {
		return k.node(six)
	}
	if six {
		return k.host.Gateway6
	}
	return k.host.Gateway
}

// places implements world.
func (k *kernel) places() []place {
	if k.local {
		return []place{ownHost}
	}
	return everywhere
}

func (k *kernel) at(p place) *rig.Namespace {
	if k.local {
		return k.box
	}
	switch p {
	case remote:
		return k.far.Namespace
	case ownHost:
		return k.host.Namespace
	case container:
		return k.client.Namespace
	}
	return k.backends[0].Namespace
}

func (k *kernel) dial(from client, proto state.Proto, to netip.AddrPort) (conn, error) {
	var local netip.AddrPort
	switch family := b2i(to.Addr().Is6()); {
	case from.address > 0:
		local = netip.AddrPortFrom(k.addresses[family][from.address], from.port)
	case from.port > 0 && family == 0:
		local = netip.AddrPortFrom(netip.IPv4Unspecified(), from.port)
	case from.port > 0:
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), from.port)
	}
	d := net.Dialer{Timeout: *patience}
	if local.IsValid() && proto == state.TCP {
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	} else if local.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
	}
	var c net.Conn
	err := k.at(from.place).Do(func() (err error) {
		c, err = d.DialContext(context.Background(), proto.String(), to.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &socket{Conn: c}, nil
}

// socket is a conn of a real kernel.
type socket struct{ net.Conn }

func (s *socket) ask() (answer, error) { return s.askFor(*patience) }

func (s *socket) askFor(d time.Duration) (answer, error) {
	_ = s.SetDeadline(time.Now().Add(d))
	if _, err := io.WriteString(s, "who\n"); err != nil {
		return answer{}, s.told(err)
	}
	buf := make([]byte, 200)
	n, err := s.Read(buf)
	if err != nil {
		return answer{}, err
	}
	backend, seen, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	a, err := netip.ParseAddrPort(backend)
	if err != nil {
		return answer{}, fmt.Errorf("answer %q: %w", buf[:n], err)
	}
	c, err := netip.ParseAddrPort(seen)
	return answer{backend: a, seen: c.Addr().Unmap()}, err
}

// told returns what the kernel says of a datagram that it did not send. What
// IPVS drops on its way out of the own host fails with EPERM; that it was
// refused, as the message says that came back, is the socket's pending error.
func (s *socket) told(err error) error {
	raw, ok := s.Conn.(syscall.Conn)
	if !ok || !errors.Is(err, syscall.EPERM) {
		return err
	}
	c, e := raw.SyscallConn()
	if e != nil {
		return err
	}
	_ = c.Control(func(fd uintptr) {
		if n, e := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); e == nil && n != 0 {
			err = syscall.Errno(n)
		}
	})
	return err
}

// close ends the connection with a reset: no state lingers that a later
// connection from the same port could meet.
func (s *socket) close() {
	if tcp, ok := s.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = s.Close()
}

// serve answers on TCP and UDP with "its-address client-address".
func serve(t *testing.T, n *rig.Namespace, at netip.AddrPort) {
	t.Helper()
	l, err := n.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p, err := n.ListenPacket(context.Background(), "udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	go serveTCP(l, at)
	go serveUDP(p, at)
}

func serveTCP(l net.Listener, at netip.AddrPort) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for lines := bufio.NewScanner(c); lines.Scan(); {
				fmt.Fprintf(c, "%s %s\n", at, c.RemoteAddr())
			}
		}()
	}
}

func serveUDP(p net.PacketConn, at netip.AddrPort) {
	buf := make([]byte, 1500)
	for {
		_, from, err := p.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = fmt.Fprintf(writerTo{p, from}, "%s %s\n", at, from)
		}
	}
}

type writerTo struct {
	net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }

func (k *kernel) ping(from place, to netip.Addr) error {
	network, kind, protocol := "ip4:icmp", icmp.Type(ipv4.ICMPTypeEcho), 1
	if to.Is6() {
		network, kind, protocol = "ip6:ipv6-icmp", ipv6.ICMPTypeEchoRequest, 58
	}
	var c *icmp.PacketConn
	err := k.at(from).Do(func() (err error) { c, err = icmp.ListenPacket(network, ""); return err })
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(*patience))
	id := os.Getpid() & 0xffff
	raw, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: id, Seq: 1, Data: []byte("meshd")}}).Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := c.WriteTo(raw, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	for buf := make([]byte, 1500); ; {
		n, peer, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil {
			return err
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.ID == id && m.Type != kind {
			if peer.String() != to.String() {
				return fmt.Errorf("answer from %s", peer)
			}
			return nil
		}
	}
}

// conntrack lists the host's tracked connections whose client asked for vip.
func (k *kernel) conntrack(vip netip.Addr) (n int, err error) {
	h, err := k.handle(unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	family := rtnl.InetFamily(unix.AF_INET)
	if vip.Is6() {
		family = unix.AF_INET6
	}
	flows, err := h.ConntrackTableList(rtnl.ConntrackTable, family)
	for _, f := range flows {
		if a, _ := netip.AddrFromSlice(f.Forward.DstIP); a.Unmap() == vip {
			n++
		}
	}
	return n, err
}

func (k *kernel) handle(families ...int) (*rtnl.Handle, error) {
	ns, err := netns.GetFromPath(k.box.Path())
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return rtnl.NewHandleAt(ns, families...)
}

// read returns a file of /proc as the host sees it.
func (k *kernel) read(path string) (string, error) {
	var raw []byte
	err := k.box.Do(func() (err error) {
		raw, err = os.ReadFile(strings.Replace(path, "/proc/net/", "/proc/thread-self/net/", 1))
		return err
	})
	return strings.TrimSpace(string(raw)), err
}

// sysctl sets a parameter of the host for the length of the test.
func (k *kernel) sysctl(t *testing.T, key, value string) {
	t.Helper()
	old, err := k.read("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
	must(t, err)
	must(t, k.box.Sysctl(key, value))
	t.Cleanup(func() { must(t, k.box.Sysctl(key, old)) })
}

// routes lists the local routes of the host to VIPs, of any table.
func (k *kernel) routes() (list []rtnl.Route, err error) {
	h, err := k.handle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		all, err := h.RouteListFiltered(family, &rtnl.Route{Table: unix.RT_TABLE_UNSPEC, Type: unix.RTN_LOCAL}, rtnl.RT_FILTER_TABLE|rtnl.RT_FILTER_TYPE)
		if err != nil {
			return nil, err
		}
		list = append(list, slices.DeleteFunc(all, func(r rtnl.Route) bool { return !ofVIPs(r.Dst) })...)
	}
	return list, nil
}

// routingRules lists the rules that lead to VIPs.
func (k *kernel) routingRules() (list []rtnl.Rule, err error) {
	h, err := k.handle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		all, err := h.RuleList(family)
		if err != nil {
			return nil, err
		}
		list = append(list, slices.DeleteFunc(all, func(r rtnl.Rule) bool { return !ofVIPs(r.Dst) })...)
	}
	return list, nil
}

func ofVIPs(dst *net.IPNet) bool {
	if dst == nil {
		return false
	}
	a, _ := netip.AddrFromSlice(dst.IP)
	return pool4.Contains(a.Unmap()) || pool6.Contains(a)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
