package dataplane

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"meshd/test/hostkind"
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
	driver    string
	kind      *hostkind.Kind // of host1; nil: prepared
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
	return newKernelOn(t, rig.NewTest(t, 3), &kernel{local: local})
}

// newKernelOn completes a kernel on the three hosts of a rig.
func newKernelOn(t *testing.T, r *rig.Rig, k *kernel) *kernel {
	t.Helper()
	k.rig = r
	hosts := r.Hosts()
	k.host, k.far = hosts[0], hosts[2]
	k.client = k.task(t, k.host, "client")
	for i := range k.backends {
		k.backends[i] = k.task(t, hosts[i/2], fmt.Sprintf("backend%d", i))
		for _, six := range k.families() {
			for _, port := range []uint16{80, 443} {
				serve(t, k.backends[i].Namespace, netip.AddrPortFrom(k.backend(i, six), port))
			}
		}
	}
	k.box = k.host.Namespace
	if k.local {
		k.box, k.client = k.backends[0].Namespace, k.backends[0]
	}
	for _, six := range k.families() {
		serve(t, k.box, netip.AddrPortFrom(k.node(six), portOfHost))
	}
	// A service of its own, which no VIP may lead to.
	anywhere := netip.IPv6Unspecified()
	if len(k.families()) == 1 {
		anywhere = netip.IPv4Unspecified()
	}
	serve(t, k.box, netip.AddrPortFrom(anywhere, 22))
	for _, p := range k.pools() {
		k.routeToPool(t, p)
	}
	k.addAddresses(t)
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
			for family, own := range []netip.Addr{k.client.Addr, k.client.Addr6}[:len(k.families())] {
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
		all, err := h.RouteListFiltered(family, &rtnl.Route{Table: unix.RT_TABLE_UNSPEC, Type: unix.RTN_LOCAL},
			rtnl.RT_FILTER_TABLE|rtnl.RT_FILTER_TYPE)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a kernel that was started without IPv6
		}
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
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a kernel that was started without IPv6
		}
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
