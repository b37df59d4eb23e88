package hostfacts_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"meshd/lb/hostfacts"
)

func route(prefix, device string, connected bool) hostfacts.Route {
	return hostfacts.Route{Prefix: netip.MustParsePrefix(prefix), Device: device, Connected: connected}
}

// TestConflicts is the table of rule L9.
func TestConflicts(t *testing.T) {
	t.Parallel()
	host := hostfacts.Facts{
		Addresses: []hostfacts.Address{
			{Addr: netip.MustParseAddr("127.0.0.1"), Device: "lo", Loopback: true},
			{Addr: netip.MustParseAddr("10.77.0.5"), Device: "eth0"},
			{Addr: netip.MustParseAddr("fd77::5"), Device: "eth0"},
		},
		Routes: []hostfacts.Route{
			route("0.0.0.0/0", "eth0", false), route("::/0", "eth0", false),
			route("10.77.0.0/24", "eth0", true), route("fd77::/64", "eth0", true),
			route("172.17.0.0/16", "docker0", true), route("10.0.0.0/8", "eth0", false),
			route("192.168.8.0/21", "eth1", true), route("10.50.3.0/24", "eth0", false), route("10.244.1.0/26", "", false),
		},
		Points: []hostfacts.Point{
			{Addr: netip.MustParseAddr("172.31.0.1"), What: "default gateway"},
			{Addr: netip.MustParseAddr("100.100.0.9"), What: "node x2"},
			{Addr: netip.MustParseAddr("10.99.0.10"), What: "name server"},
		},
	}
	wide := host
	wide.Allowed = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("127.0.0.0/8")}
	unknown := hostfacts.Facts{Unknown: "netlink: no buffer space"}
	for _, c := range []struct {
		name, pool string
		facts      hostfacts.Facts
		want       string // of the first conflict; empty: none
	}{
		{"free, beside a corporate route and the default route", "10.96.0.0/16", host, ""},
		{"free IPv6", "fd96::/64", host, ""},
		{"nothing is known to stand against it", "10.96.0.0/16", hostfacts.Facts{}, ""},
		{"contains the connected route", "10.77.0.0/16", host, "route 10.77.0.0/24 of device eth0"},
		{"equal to the connected route", "10.77.0.0/24", host, "route 10.77.0.0/24 of device eth0"},
		{"inside the connected route", "10.77.0.128/25", host, "route 10.77.0.0/24 of device eth0"},
		{"inside a wide connected route", "192.168.9.0/24", host, "route 192.168.8.0/21 of device eth1"},
		{"IPv6 contains the connected route", "fd77::/48", host, "route fd77::/64 of device eth0"},
		{"a bridge of containers", "172.17.0.0/16", host, "route 172.17.0.0/16 of device docker0"},
		{"equal to the corporate route", "10.0.0.0/8", host, "route 10.77.0.0/24 of device eth0"},
		{"a static route inside the pool", "10.50.0.0/16", host, "route 10.50.3.0/24 of device eth0"},
		{"equal to a static route", "10.50.3.0/24", host, "route 10.50.3.0/24 of device eth0"},
		{"inside a static route", "10.50.3.128/25", host, ""},
		{"a blackhole inside the pool", "10.244.0.0/16", host, "route 10.244.1.0/26"},
		{"a gateway", "172.31.0.0/24", host, "default gateway 172.31.0.1"},
		{"a peer", "100.100.0.0/16", host, "node x2 100.100.0.9"},
		{"a name server", "10.99.0.0/16", host, "name server 10.99.0.10"},
		{"public", "203.0.113.0/24", host, "it is not within the pools that this host allows"},
		{"public, allowed", "203.0.113.0/24", wide, ""},
		{"private, not allowed", "10.96.0.0/16", wide, "it is not within the pools that this host allows"},
		{"loopback", "127.0.0.0/8", host, "it is not within the pools that this host allows"},
		{"loopback, allowed", "127.0.0.0/8", wide, "address 127.0.0.1 of device lo"},
		{"all of IPv6", "::/0", host, "it is not within the pools that this host allows"},
		{"all global IPv6", "2000::/3", host, "it is not within the pools that this host allows"},
		{"half of what is allowed", "10.0.0.0/7", host, "it is not within the pools that this host allows"},
		{"multicast", "224.0.0.0/8", host, "it is not within the pools that this host allows"},
		{"link-local", "fe80::/64", host, "it is not within the pools that this host allows"},
		{"a host that could not be asked", "10.96.0.0/16", unknown, "the addresses and routes of this host are not known: netlink: no buffer space"},
	} {
		found := hostfacts.Conflicts(netip.MustParsePrefix(c.pool), &c.facts)
		got := ""
		if len(found) > 0 {
			got = found[0].What
		}
		if (c.want == "") != (got == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: pool %s has %v, want %q", c.name, c.pool, found, c.want)
		}
	}
}

// TestConflictsAreBounded gives a router's table: what is told stays short.
func TestConflictsAreBounded(t *testing.T) {
	t.Parallel()
	var f hostfacts.Facts
	for i := range 1000 {
		f.Routes = append(f.Routes, route(fmt.Sprintf("10.%d.%d.0/24", i/250, i%250), "eth0", false))
	}
	if got := hostfacts.Conflicts(netip.MustParsePrefix("10.0.0.0/8"), &f); len(got) != hostfacts.MaxConflicts {
		t.Errorf("%d conflicts are told, want %d", len(got), hostfacts.MaxConflicts)
	}
}

// TestSortedFactsAreEqual sorts the same facts from two orders.
func TestSortedFactsAreEqual(t *testing.T) {
	t.Parallel()
	a := hostfacts.Facts{Routes: []hostfacts.Route{
		route("10.1.0.0/16", "a", true), route("10.0.0.0/8", "b", false),
		route("10.1.0.0/16", "a", true),
	}}
	b := hostfacts.Facts{Routes: []hostfacts.Route{route("10.0.0.0/8", "b", false), route("10.1.0.0/16", "a", true)}}
	a.Sort()
	b.Sort()
	if !a.Equal(&b) {
		t.Errorf("%v differs from %v", a, b)
	}
	if c := b.With(nil, hostfacts.Point{Addr: netip.MustParseAddr("10.0.0.1"), What: "node"}); c.Equal(&b) ||
		len(b.Points) > 0 {
		t.Errorf("with a point: %v, and before %v", c, b)
	}
}
