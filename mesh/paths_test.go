package mesh

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"meshd/mesh/control"
)

// Addresses of a host that cannot be a task's, and those that rarely are.
func TestBroadcastOf(t *testing.T) {
	own := []net.Addr{
		&net.IPNet{IP: net.IPv4(10, 1, 1, 7), Mask: net.CIDRMask(24, 32)},
		&net.IPNet{IP: net.IPv4(10, 9, 0, 0), Mask: net.CIDRMask(31, 32)},
		&net.IPNet{IP: net.IPv4(10, 2, 2, 2), Mask: net.CIDRMask(32, 32)},
		&net.IPNet{IP: net.ParseIP("fd00::1"), Mask: net.CIDRMask(64, 128)},
		&net.IPNet{IP: net.IPv4(10, 3, 3, 5), Mask: net.CIDRMask(30, 32)}, &net.UnixAddr{},
	}
	for text, want := range map[string]string{
		"10.1.1.255": "10.1.1.0/24", "10.3.3.7": "10.3.3.4/30", "10.1.1.7": "", "10.1.1.0": "", "10.1.2.255": "",
		"10.9.0.1": "", "10.2.2.2": "",
		"fd00::ffff:ffff:ffff:ffff": "", "::ffff:10.1.1.255": "",
	} {
		p := broadcastOf(netip.MustParseAddr(text), own)
		if got := p.String(); p.IsValid() && got != want || !p.IsValid() && want != "" {
			t.Errorf("%s: %s, want %q", text, got, want)
		}
	}
	nodes := []control.Node{
		{Name: "a", Address: "10.9.9.9:7946", Self: true},
		{Name: "b", Address: "10.9.9.8:7946"},
		{Name: "c", Address: "[fd00::2]:7946"},
		{Name: "d"},
	}
	for text, want := range map[string]string{
		"10.1.1.0": "10.1.1.0 is the subnet 10.1.1.0/24 itself", "10.3.3.4": "the subnet 10.3.3.4/30",
		"10.9.9.8": "address of node b", "fd00::2": "address of node c",
		"10.9.9.9": "", "10.1.1.7": "", "10.9.0.0": "", "10.2.2.2": "", "fd00::": "", "10.5.5.5": "",
	} {
		got := strings.Join(addressWarnings([]netip.Addr{netip.MustParseAddr(text), {}}, own, nodes), "\n")
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if p := broadcastOf(netip.Addr{}, own); p.IsValid() {
		t.Error(p)
	}
}
