package pool

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"

	"meshd/lb"
)

// What conntrack took elsewhere before a pool was there is forgotten when it
// becomes ours, once.
func TestConnectionsFromBeforeThePool(t *testing.T) {
	r := newRig(t)
	h := r.marked()             // conntrack is on
	r.Node.Do(t, func() error { // as a default route would; a redirect would teach the peer another way
		for _, link := range []string{"all", "link0"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+link+"/send_redirects", []byte("0"), 0); err != nil {
				return err
			}
		}
		return rtnl.RouteAdd(&rtnl.Route{Dst: ipNet(netip.MustParsePrefix("10.0.0.0/8")), Gw: []byte{10, 1, 0, 5}})
	})
	client, err := r.Dial(r.Peer, "udp", "10.96.3.7:80", "10.1.0.4:0")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ask := func() {
		t.Helper()
		if _, err := client.Write([]byte("x\n")); err != nil {
			t.Fatal(err)
		}
	}
	early := func() (n int) {
		list, err := h.Base.conn.Routes.ConntrackTableList(rtnl.ConntrackTable, rtnl.InetFamily(familyOf(vip4)))
		if err != nil {
			t.Fatal(err)
		}
		for _, flow := range list {
			if address(flow.Forward.DstIP) == vip4 && address(flow.Reverse.SrcIP) == vip4 {
				n++
			}
		}
		return n
	}
	ask()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(5*time.Second)
	defer tick.Stop()
	for early() != 1 { // the node asks for the neighbour first
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d untranslated connections before the pool; want one", early())
		}
	}
	if err := h.SetPool(lb.Pool{Prefix: pool4, Src: node4}); err != nil {
		t.Fatal(err)
	}
	if early() != 0 {
		t.Error("conntrack still has it")
	}
	ask()
	_ = client.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := client.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the guard: %v, want it to refuse", err)
	}
	if early() != 0 {
		t.Error("what the guard refuses is remembered")
	}
}
