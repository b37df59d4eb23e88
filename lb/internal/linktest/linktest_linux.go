package linktest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
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

	"meshd/lb/internal/namespace"
)

// Pair is a node and a peer, each a network namespace of its own, joined by one
// link. The node has 10.1.0.1 and fd01::1, the peer .2 to .5 and ::2 to ::5.
// The peer reaches the VIPs through the node.
type Pair struct {
	T          testing.TB
	Node, Peer *Namespace
}

// The pools, a VIP of each, and the addresses of the node.
var (
	Pool4 = netip.MustParsePrefix("10.96.0.0/16")
	Pool6 = netip.MustParsePrefix("fd96::/64")
	VIP4  = netip.MustParseAddr("10.96.3.7")
	VIP6  = netip.MustParseAddr("fd96::37")
	Node4 = netip.MustParseAddr("10.1.0.1")
	Node6 = netip.MustParseAddr("fd01::1")
)

// Namespace is a network namespace that lives as long as the test.
type Namespace struct {
	Path   string
	Handle netns.NsHandle
}

func newNamespace(t testing.TB) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces; run with sudo")
	}
	got := make(chan error, 1)
	n := &Namespace{}
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			got <- err
			return
		}
		var err error
		n.Handle, err = netns.Get()
		got <- err
	}()
	if err := <-got; err != nil {
		t.Skipf("cannot make a network namespace here: %v", err)
	}
	t.Cleanup(func() { n.Handle.Close() })
	n.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.Handle))
	return n
}

// Do runs f on a thread inside the namespace.
func (n *Namespace) Do(t testing.TB, f func() error) {
	t.Helper()
	if err := namespace.Inside(n.Path, f); err != nil {
		t.Fatal(err)
	}
}

// New makes a pair, which is gone when the test ends.
func New(t testing.TB) *Pair {
	p := &Pair{T: t, Node: newNamespace(t), Peer: newNamespace(t)}
	p.Node.Do(t, func() error {
		veth := &rtnl.Veth{
			LinkAttrs: rtnl.LinkAttrs{Name: "link0"}, PeerName: "link1",
			PeerNamespace: rtnl.NsFd(p.Peer.Handle),
		}
		if err := rtnl.LinkAdd(veth); err != nil {
			return err
		}
		return up("link0", "10.1.0.1/24", "fd01::1/64")
	})
	p.Peer.Do(t, func() error {
		var addrs []string
		for i := 2; i <= 5; i++ {
			addrs = append(addrs, fmt.Sprintf("10.1.0.%d/24", i), fmt.Sprintf("fd01::%d/64", i))
		}
		if err := up("link1", addrs...); err != nil {
			return err
		}
		for _, to := range []netip.Prefix{Pool4, Pool6} {
			via := Node4
			if to.Addr().Is6() {
				via = Node6
			}
			if err := rtnl.RouteAdd(&rtnl.Route{Dst: ipNet(to), Gw: via.AsSlice()}); err != nil {
				return err
			}
		}
		return nil
	})
	return p
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

// Serve answers on TCP and UDP with "address client" until the test ends.
func (p *Pair) Serve(n *Namespace, addr string) {
	p.T.Helper()
	n.Do(p.T, func() error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		p.T.Cleanup(func() { l.Close() })
		go serveTCP(l, addr)
		u, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		p.T.Cleanup(func() { u.Close() })
		go serveUDP(u, addr)
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

// Dial connects from a namespace.
func (p *Pair) Dial(n *Namespace, network, addr, from string) (c net.Conn, err error) {
	_ = namespace.Inside(n.Path, func() error {
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

// Ask makes one connection and returns who answered and whom it saw.
func (p *Pair) Ask(n *Namespace, network, addr, from string) (backend, client string, err error) {
	c, err := p.Dial(n, network, addr, from)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	if l, ok := c.(*net.TCPConn); ok {
		_ = l.SetLinger(0)
	}
	return Say(c)
}

// Say sends one line over a connection.
func Say(c net.Conn) (backend, client string, err error) {
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

// Spread asks several times and counts the answers by backend.
func (p *Pair) Spread(n *Namespace, network, addr string, times int) map[string]int {
	p.T.Helper()
	got := map[string]int{}
	for range times {
		backend, _, err := p.Ask(n, network, addr, "")
		if err != nil {
			p.T.Fatalf("%s %s: %v", network, addr, err)
		}
		got[backend]++
	}
	return got
}

// NftList returns what the nft tool makes of our tables.
func (p *Pair) NftList() string {
	p.T.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		return ""
	}
	var out []byte
	p.Node.Do(p.T, func() (err error) {
		out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("nft list ruleset: %w: %s", err, out)
		}
		return err
	})
	return string(out)
}

// Reload saves the node's ruleset, flushes it, and loads it again, as hosts do
// that keep their rules over a restart.
func (p *Pair) Reload() (saved string) {
	p.T.Helper()
	if saved = p.NftList(); saved == "" {
		p.T.Skip("needs nft")
	}
	p.Node.Do(p.T, func() error {
		load := exec.Command("nft", "-f", "-")
		load.Stdin = bytes.NewReader([]byte("flush ruleset\n" + saved))
		if out, err := load.CombinedOutput(); err != nil {
			return fmt.Errorf("nft -f: %w: %s\nof\n%s", err, out, saved)
		}
		return nil
	})
	return saved
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
