package mesh

import (
	"net/netip"
	"slices"
	"testing"
)

// IPv4 that is written as IPv6 is IPv4: what is compared with it is.
func TestMappedPrefixes(t *testing.T) {
	want := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.0.0.7/32")}
	cfg := Config{Node: "n", Insecure: true, DNSClients: []string{"::ffff:10.1.0.0/112", "::ffff:10.0.0.7"}, Pools: []string{"::ffff:10.1.0.0/112", "10.0.0.7/32"}}
	s, err := cfg.settle()
	if err != nil || !slices.Equal(s.dnsClients, want) || !slices.Equal(s.pools, want) {
		t.Errorf("%v, %v, %v", s, err, want)
	}
}
