package config

import (
	"net/netip"
	"slices"
	"testing"
)

// IPv4 that is written as IPv6 is IPv4: what is compared with it is.
func TestMappedPrefixes(t *testing.T) {
	want := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.0.0.7/32")}
	cfg := Config{
		Node: "n", Insecure: true, DNSClients: []string{"::ffff:10.1.0.0/112", "::ffff:10.0.0.7"},
		Pools: []string{"::ffff:10.1.0.0/112"},
	}
	s, err := cfg.Check()
	if err != nil || !slices.Equal(s.ClientRanges, want) || !slices.Equal(s.PoolRanges, want[:1]) {
		t.Errorf("%v, %v, %v", s, err, want)
	}
}

// Addresses to listen on, too: else they are told to be none of this host's.
func TestMappedAddresses(t *testing.T) {
	cfg := Config{
		Node: "n", Insecure: true, Bind: "::ffff:10.0.0.7", Advertise: "::ffff:10.0.0.8",
		DNS: []string{"[::ffff:10.0.0.7]:53"},
	}
	s, err := cfg.Check()
	if want := netip.MustParseAddrPort("10.0.0.7:7946"); err != nil || s.BindAddr != want ||
		s.AdvertiseAddr != want.Addr().Next() || s.DNSAddrs[0] != netip.AddrPortFrom(want.Addr(), 53) {
		t.Errorf("%v, %v", s, err)
	}
}
