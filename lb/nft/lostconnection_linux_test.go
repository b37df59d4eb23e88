package nft

import (
	"errors"
	"os"
	"syscall"
	"testing"

	rtnl "github.com/vishvananda/netlink"

	"meshd/lb/internal/linktest"
	"meshd/state"
)

// A task is a client as well. What it sends to a VIP in a connection that the
// host does not know any more, and may not take up, is answered by a reset, as
// that of other clients is, and not lost as a stray segment of a backend.
func TestTaskOfLostConnectionIsReset(t *testing.T) {
	r := newRig(t)
	for _, a := range []string{"10.1.0.2:80", "10.1.0.3:80", "[fd01::2]:80", "[fd01::3]:80"} {
		r.Serve(r.Peer, a)
	}
	d := r.driver()
	r.program(d, table(
		service(vip4, 80, state.TCP, "10.1.0.2:80"), service(vip4.Next(), 80, state.TCP, "10.1.0.3:80"),
		service(vip6, 80, state.TCP, "[fd01::2]:80"), service(vip6.Next(), 80, state.TCP, "[fd01::3]:80")))
	r.Node.Do(t, func() error {
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", []byte("0"), 0)
	})
	for _, test := range []struct{ vip, own, ofClient string }{
		{"10.96.3.7:80", "10.96.3.8:80", "10.1.0.3:0"},
		{"[fd96::37]:80", "[fd96::38]:80", "[fd01::3]:0"},
	} {
		if _, _, err := r.Ask(r.Node, "tcp", test.own, ""); err != nil { // now it is known for a task
			t.Fatal(err)
		}
		c, err := r.Dial(r.Peer, "tcp", test.vip, test.ofClient)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, _, err := linktest.Say(c); err != nil {
			t.Fatal(err)
		}
		r.Node.Do(t, func() error { return rtnl.ConntrackTableFlush(rtnl.ConntrackTable) })
		if _, _, err := linktest.Say(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s, a task, sends to %s in a connection that is lost: %v, want a reset", test.ofClient, test.vip, err)
		}
	}
}
