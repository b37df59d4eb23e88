package nft

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/state"
)

// rig is a node and a peer, each a network namespace of its own, joined by one
// link. The node has 10.1.0.1 and fd01::1, the peer .2 to .5 and ::2 to ::5.
// The peer reaches the VIPs through the node.
type rig struct {
	t          testing.TB
	node, peer *namespace
}

var (
	pool4 = netip.MustParsePrefix("10.96.0.0/16")
	pool6 = netip.MustParsePrefix("fd96::/64")
	vip4  = netip.MustParseAddr("10.96.3.7")
	vip6  = netip.MustParseAddr("fd96::37")
	node4 = netip.MustParseAddr("10.1.0.1")
	node6 = netip.MustParseAddr("fd01::1")
)

// namespace is a network namespace that lives as long as the test.
type namespace struct {
	path   string
	handle netns.NsHandle
}

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces; run with sudo")
	}
	got := make(chan error, 1)
	n := &namespace{}
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			got <- err
			return
		}
		var err error
		n.handle, err = netns.Get()
		got <- err
	}()
	if err := <-got; err != nil {
		t.Skipf("cannot make a network namespace here: %v", err)
	}
	t.Cleanup(func() { n.handle.Close() })
	n.path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.handle))
	return n
}

// do runs f on a thread inside the namespace.
func (n *namespace) do(t testing.TB, f func() error) {
	t.Helper()
	if err := Inside(n.path, f); err != nil {
		t.Fatal(err)
	}
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, node: newNamespace(t), peer: newNamespace(t)}
	r.node.do(t, func() error {
		veth := &rtnl.Veth{
			LinkAttrs: rtnl.LinkAttrs{Name: "link0"}, PeerName: "link1",
			PeerNamespace: rtnl.NsFd(r.peer.handle),
		}
		if err := rtnl.LinkAdd(veth); err != nil {
			return err
		}
		return up("link0", "10.1.0.1/24", "fd01::1/64")
	})
	r.peer.do(t, func() error {
		var addrs []string
		for i := 2; i <= 5; i++ {
			addrs = append(addrs, fmt.Sprintf("10.1.0.%d/24", i), fmt.Sprintf("fd01::%d/64", i))
		}
		if err := up("link1", addrs...); err != nil {
			return err
		}
		for _, p := range []netip.Prefix{pool4, pool6} {
			via := node4
			if p.Addr().Is6() {
				via = node6
			}
			if err := rtnl.RouteAdd(&rtnl.Route{Dst: ipNet(p), Gw: via.AsSlice()}); err != nil {
				return err
			}
		}
		return nil
	})
	return r
}

func up(link string, addrs ...string) error {
	for _, name := range []string{"lo", link} {
		l, err := rtnl.LinkByName(name)
		if err != nil {
			return err
		}
		if err := rtnl.LinkSetUp(l); err != nil {
			return err
		}
		if name != link {
			continue
		}
		for _, a := range addrs {
			addr, err := rtnl.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags |= unix.IFA_F_NODAD
			if err := rtnl.AddrAdd(l, addr); err != nil {
				return fmt.Errorf("%s: %w", a, err)
			}
		}
	}
	return nil
}

// serve answers on TCP and UDP with "address client" until the test ends.
func (r *rig) serve(n *namespace, addr string) {
	r.t.Helper()
	n.do(r.t, func() error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		r.t.Cleanup(func() { l.Close() })
		go serveTCP(l, addr)
		p, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		r.t.Cleanup(func() { p.Close() })
		go serveUDP(p, addr)
		return nil
	})
}

// serveTCP answers every line.
func serveTCP(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for lines := bufio.NewScanner(c); lines.Scan(); {
				fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr())
			}
		}()
	}
}

func serveUDP(p net.PacketConn, name string) {
	buf := make([]byte, 1500)
	for {
		_, from, err := p.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = p.WriteTo([]byte(name+" "+from.String()+"\n"), from)
	}
}

// dial connects from a namespace.
func (r *rig) dial(n *namespace, network, addr, from string) (c net.Conn, err error) {
	_ = Inside(n.path, func() error {
		d := net.Dialer{Timeout: 3 * time.Second}
		if from != "" {
			d.LocalAddr, err = net.ResolveTCPAddr("tcp", from)
			if network == "udp" {
				d.LocalAddr, err = net.ResolveUDPAddr("udp", from)
			}
		}
		if err == nil {
			c, err = d.Dial(network, addr)
		}
		return nil
	})
	return c, err
}

// ask makes one connection and returns who answered and whom it saw.
func (r *rig) ask(n *namespace, network, addr, from string) (backend, client string, err error) {
	c, err := r.dial(n, network, addr, from)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	if l, ok := c.(*net.TCPConn); ok {
		_ = l.SetLinger(0)
	}
	return say(c)
}

// say sends one line over a connection.
func say(c net.Conn) (backend, client string, err error) {
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.WriteString(c, "x\n"); err != nil {
		return "", "", err
	}
	buf := make([]byte, 200)
	n, err := c.Read(buf)
	if err != nil {
		return "", "", err
	}
	backend, client, _ = strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	return backend, client, nil
}

// spread asks several times and counts the answers by backend.
func (r *rig) spread(n *namespace, network, addr string, times int) map[string]int {
	r.t.Helper()
	got := map[string]int{}
	for range times {
		backend, _, err := r.ask(n, network, addr, "")
		if err != nil {
			r.t.Fatalf("%s %s: %v", network, addr, err)
		}
		got[backend]++
	}
	return got
}

// driver returns a driver for the node that is set up and has both pools.
func (r *rig) driver() *Driver {
	r.t.Helper()
	d, err := New(Config{NetNS: r.node.path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { d.Close() })
	if err := d.Probe(r.t.Context()); err != nil {
		r.t.Skipf("this kernel cannot: %v", err)
	}
	if err := d.Setup(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	return d
}

// table returns a table with both pools and these services.
func table(services ...*lb.Service) *lb.Table {
	t := lb.NewTable()
	t.Pools[pool4] = lb.Pool{Prefix: pool4, Src: node4}
	t.Pools[pool6] = lb.Pool{Prefix: pool6, Src: node6}
	for _, s := range services {
		t.Services[s.Key] = s
	}
	return t
}

// service makes a service; a backend is "address:port" or "address:port*weight".
func service(vip netip.Addr, port uint16, proto state.Proto, backends ...string) *lb.Service {
	s := &lb.Service{Key: lb.Key{VIP: vip, Port: port, Proto: proto}, Scheduler: "wrr"}
	t := lb.NewTable()
	ops := []lb.Op{{Kind: lb.SetService, Key: s.Key, Service: s}}
	for _, b := range backends {
		addr, weight, weighted := strings.Cut(b, "*")
		back := lb.Backend{Addr: netip.MustParseAddrPort(addr), Weight: 1}
		if weighted {
			fmt.Sscan(weight, &back.Weight)
		}
		ops = append(ops, lb.Op{Kind: lb.SetBackend, Key: s.Key, Backend: back})
	}
	t.Apply(ops, nil)
	return t.Services[s.Key]
}

// program makes the kernel hold the table, draining nothing.
func (r *rig) program(d *Driver, desired *lb.Table) {
	r.t.Helper()
	at := lb.NewTable()
	at.Pools = d.help.Pools()
	for k, e := range d.entries {
		at.Services[k] = e.svc
	}
	now := lb.Policy{Drained: func(lb.Key, netip.AddrPort) bool { return true }}
	for range 2 { // weight 0 first, then gone
		ops := lb.Diff(at, desired, now)
		for i, err := range d.Apply(r.t.Context(), ops) {
			if err != nil {
				r.t.Fatalf("%s: %v", ops[i], err)
			}
		}
		at.Apply(ops, nil)
	}
}

// nftList returns what the nft tool makes of our tables.
func (r *rig) nftList() string {
	r.t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		return ""
	}
	var out []byte
	r.node.do(r.t, func() (err error) {
		out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("nft list ruleset: %w: %s", err, out)
		}
		return err
	})
	return string(out)
}
