//go:build linux

package netns

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
)

// TestReturnsElsewhere kills a daemon and starts it at a new address, or at
// another port, under its name: within two seconds the others list it there and
// hold its tables (S7, G11).
func TestReturnsElsewhere(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 3)
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	victim := nodes[2]
	for try := range 10 {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 20, 0, byte(200 + try)}), 7946)
		if try%3 == 2 {
			at = netip.AddrPortFrom(victim.Host.Addr, uint16(7946+try))
		} else {
			must(t, victim.Host.AddAddress(at.Addr()))
		}
		victim.Proc.Kill()
		victim.Move(at)
		must(t, victim.Start(t.Context()))
		start := time.Now()
		fleet.Within(t, 2*time.Second, func(ctx context.Context) error {
			if err := listedAt(ctx, victim, at, nodes[:2]); err != nil {
				return err
			}
			return nodes[0].Equal(ctx, 3)
		})
		t.Logf("at %s: taken by all %v after it answers", at, time.Since(start).Round(time.Millisecond))
		fleet.Within(t, 5*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	}
}

// listedAt checks that the membership of each of some nodes has one alive at an
// address.
func listedAt(ctx context.Context, one *fleet.Node, at netip.AddrPort, by []*fleet.Node) error {
	for _, n := range by {
		all, err := n.API.Nodes(ctx)
		if err != nil {
			return err
		}
		for _, x := range all {
			if x.Name == one.Host.Name && (x.Address != at.String() || x.State != control.NodeAlive || !x.Listed) {
				return fmt.Errorf("%s sees %+v, not at %s", n.Host.Name, x, at)
			}
		}
	}
	return nil
}
