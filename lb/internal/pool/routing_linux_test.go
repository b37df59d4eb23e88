package pool

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/sysctl"
)

// unmoved checks that nothing is there but what a Base knows of.
func (r *rig) unmoved(h *Marked, when string, pools ...netip.Prefix) {
	r.T.Helper()
	if found, err := h.Check(); err != nil || len(found) > 0 {
		r.T.Errorf("%s: %v, %v", when, found, err)
	}
	if got := h.Pools(); len(got) != len(pools) {
		r.T.Errorf("%s: pools %v, want %v", when, got, pools)
	}
	ways, err := h.routes.ways()
	if err != nil || len(ways) != len(pools) {
		r.T.Errorf("%s: ways %v, %v; want %v", when, ways, err, pools)
	}
	for _, p := range pools {
		if !h.Owns(p.Addr()) || !ways[p].complete() {
			r.T.Errorf("%s: pools %v, way %+v; want %s", when, h.Pools(), ways[p], p)
		}
	}
}

// Where IPv6 is switched off, an IPv6 pool is refused as a whole, with what to
// do, and the other pools go on.
func TestPoolWithoutIPv6(t *testing.T) {
	r := newRig(t)
	h := r.marked()
	six := lb.Pool{Prefix: pool6, Src: node6}
	must(t, h.SetPool(lb.Pool{Prefix: pool4, Src: node4}))
	off := func(value string) {
		r.Node.Do(t, func() error { return sysctl.Write("net/ipv6/conf/lo/disable_ipv6", value) })
	}
	off("1")
	if err := h.SetPool(six); err == nil || !strings.Contains(err.Error(), "net.ipv6.conf.lo.disable_ipv6=1") {
		t.Errorf("set: %v; want the sysctl", err)
	}
	r.unmoved(h, "refused", pool4)
	r.Node.Do(t, func() error {
		if is, err := sysctl.Read(sysctl.ForwardIPv6); err != nil || is != "0" {
			return errors.Join(err, fmt.Errorf("forwarding of IPv6 is %s for nothing", is))
		}
		return nil
	})
	off("0")
	must(t, h.SetPool(six))
	r.unmoved(h, "switched on", pool4, pool6)
	off("1") // the kernel takes the route away
	if found, err := h.Check(); err != nil || len(found) == 0 {
		t.Errorf("switched off: %v, %v", found, err)
	}
	must(t, h.Setup())
	r.unmoved(h, "switched off", pool4)
}

// A pool that cannot be had is taken back: what is left would be somebody else's
// doing at the next comparison.
func TestPoolIsTakenBack(t *testing.T) {
	r := newRig(t)
	h := r.marked()
	nowhere := netip.MustParseAddr("10.9.9.9")
	if err := h.SetPool(lb.Pool{Prefix: pool4, Src: nowhere}); err == nil ||
		!strings.Contains(err.Error(), nowhere.String()) {
		t.Errorf("set with the source %s: %v", nowhere, err)
	}
	r.unmoved(h, "refused")
	must(t, h.SetPool(lb.Pool{Prefix: pool4, Src: node4}))
	if err := h.SetPool(lb.Pool{Prefix: pool4, Src: nowhere}); err == nil {
		t.Errorf("changed to the source %s", nowhere)
	}
	r.unmoved(h, "not changed", pool4)
}

// The route to an IPv4 pool says what the device with its source address takes,
// and follows it.
func TestRouteMTU(t *testing.T) {
	r := newRig(t)
	h := r.marked()
	for _, p := range []lb.Pool{
		{Prefix: pool4, Src: node4},
		{Prefix: pool6, Src: node6},
		{Prefix: netip.MustParsePrefix("10.97.0.0/16")},
	} {
		must(t, h.SetPool(p))
	}
	for _, mtu := range []int{1500, 1400} {
		r.Node.Do(t, func() error {
			link, err := rtnl.LinkByName("link0")
			if err != nil {
				return err
			}
			return rtnl.LinkSetMTU(link, mtu)
		})
		if found, err := h.Check(); mtu != 1500 && (err != nil ||
			!strings.Contains(fmt.Sprint(found), "found mtu 1500, want mtu 1400")) {
			t.Errorf("another MTU: %v, %v", found, err)
		}
		must(t, h.Setup())
		routes, err := h.routes.listRoutes(unix.AF_INET, &rtnl.Route{Table: poolTable, Protocol: routeProtocol})
		must(t, err)
		for _, route := range routes {
			want := 0
			if route.Src != nil {
				want = mtu
			}
			if route.MTU != want {
				t.Errorf("route %v has MTU %d, want %d", route, route.MTU, want)
			}
		}
		if found, err := h.Check(); err != nil || len(found) > 0 || len(routes) != 2 {
			t.Errorf("routes %v, check %v, %v", routes, found, err)
		}
	}
}
