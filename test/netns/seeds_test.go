//go:build linux

package netns

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meshd/test/fleet"
)

// TestPoolOverASeed starts a node that carries a network whose pool holds its
// only seed, which it reaches over a gateway: no address or route of the host
// stands against the pool, and once the pool is programmed the seed is out of
// reach. So the addresses to join count from the start, and so do the peers of
// former lives.
func TestPoolOverASeed(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 2)
	all := f.Rig.Hosts()
	seed, node := f.AddNode(all[1], nil), f.AddNode(all[0], []string{"--join", "10.50.0.1"})
	at := netip.MustParseAddr("10.50.0.1")
	inside(t, all[1], "ip address add 10.50.0.1/32 dev eth0")
	inside(t, all[0], "ip route add default via "+all[1].Addr.String())
	seed.Move(netip.AddrPortFrom(at, 7946))
	must(t, seed.Start(t.Context()))
	carries(t, node, "oops", "10.50.0.0/16")
	must(t, node.Start(t.Context()))
	runIn(t, node, "oops", "web", 1)
	met := func() {
		fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return node.Members(ctx, 2) })
		degraded(t, node, "10.50.0.1")
		if route := inside(t, all[0], "ip route get 10.50.0.1"); !strings.Contains(route, "dev eth0") {
			t.Errorf("the way to the seed is %s", route)
		}
	}
	met()
	for _, p := range []*fleet.Node{seed, node} { // and alone, in another life
		p.Proc.Kill()
	}
	must(t, node.Start(t.Context()))
	degraded(t, node, "10.50.0.1")
	must(t, seed.Start(t.Context()))
	met()
}
