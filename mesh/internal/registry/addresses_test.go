package registry

import (
	"net/netip"
	"strings"
	"testing"

	"meshd/mesh/control"
)

// Addresses that are rarely a task's are warned of.
func TestAddressWarnings(t *testing.T) {
	own := []netip.Prefix{
		netip.MustParsePrefix("10.1.1.7/24"), netip.MustParsePrefix("10.9.0.0/31"), netip.MustParsePrefix("10.2.2.2/32"),
		netip.MustParsePrefix("fd00::1/64"), netip.MustParsePrefix("10.3.3.5/30"),
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
}
