package state_test

import (
	"net/netip"
	"testing"

	"meshd/state"
)

// Broadcast addresses of a host's subnets cannot be a task's.
func TestBroadcastSubnet(t *testing.T) {
	own := []netip.Prefix{
		netip.MustParsePrefix("10.1.1.7/24"), netip.MustParsePrefix("10.9.0.0/31"), netip.MustParsePrefix("10.2.2.2/32"),
		netip.MustParsePrefix("fd00::1/64"), netip.MustParsePrefix("10.3.3.5/30"),
	}
	for text, want := range map[string]string{
		"10.1.1.255": "10.1.1.0/24", "10.3.3.7": "10.3.3.4/30", "10.1.1.7": "", "10.1.1.0": "", "10.1.2.255": "",
		"10.9.0.1": "", "10.2.2.2": "",
		"fd00::ffff:ffff:ffff:ffff": "", "::ffff:10.1.1.255": "",
	} {
		p := state.BroadcastSubnet(netip.MustParseAddr(text), own)
		if got := p.String(); p.IsValid() && got != want || !p.IsValid() && want != "" {
			t.Errorf("%s: %s, want %q", text, got, want)
		}
	}
	if p := state.BroadcastSubnet(netip.Addr{}, own); p.IsValid() {
		t.Error(p)
	}
}
