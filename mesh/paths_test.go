package mesh

import (
	"net"
	"net/netip"
	"testing"
)

func TestBroadcastOf(t *testing.T) {
	own := []net.Addr{
		&net.IPNet{IP: net.IPv4(10, 1, 1, 7), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.IPv4(10, 9, 0, 0), Mask: net.CIDRMask(31, 32)},
		&net.IPNet{IP: net.IPv4(10, 2, 2, 2), Mask: net.CIDRMask(32, 32)}, &net.IPNet{IP: net.ParseIP("fd00::1"), Mask: net.CIDRMask(64, 128)},
		&net.IPNet{IP: net.IPv4(10, 3, 3, 5), Mask: net.CIDRMask(30, 32)}, &net.UnixAddr{},
	}
	for text, want := range map[string]string{
		"10.1.1.255": "10.1.1.0/24", "10.3.3.7": "10.3.3.4/30", "10.1.1.7": "", "10.1.1.0": "", "10.1.2.255": "", "10.9.0.1": "", "10.2.2.2": "",
		"fd00::ffff:ffff:ffff:ffff": "", "::ffff:10.1.1.255": "",
	} {
		p := broadcastOf(netip.MustParseAddr(text), own)
		if got := p.String(); p.IsValid() && got != want || !p.IsValid() && want != "" {
			t.Errorf("%s: %s, want %q", text, got, want)
		}
	}
	if p := broadcastOf(netip.Addr{}, own); p.IsValid() {
		t.Error(p)
	}
}
