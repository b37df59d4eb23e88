package state

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// TestPools covers the one rule for pools: each bound, and each range that no
// host may lose.
func TestPools(t *testing.T) {
	for s, want := range map[string]string{
		"10.9.0.0/16": "", "10.0.0.0/8": "", "10.9.0.0/29": "", "203.0.113.0/24": "", "192.0.2.0/24": "",
		"100.64.0.0/10":  "",
		"10.9.0.0/30":    "too small",
		"10.0.0.0/7":     "too large",
		"10.9.0.1/16":    "bits set",
		"127.0.0.0/8":    "loopback",
		"127.1.0.0/16":   "loopback",
		"0.0.0.0/8":      "this host",
		"0.0.0.0/0":      "too large",
		"169.254.9.0/24": "link-local",
		"224.0.0.0/8":    "multicast",
		"239.1.0.0/16":   "multicast",
		"240.0.0.0/8":    "reserved",
		"255.0.0.0/8":    "reserved",
		"255.255.0.0/16": "reserved",
		"fd00::/64":      "is not IPv4",
		"x":              "not a CIDR",
		"":               "not a CIDR",
	} {
		wantPool(t, s, IPv4, want)
	}
	for s, want := range map[string]string{
		"fd00:9::/64": "", "fd00::/16": "", "2001:db8::/48": "",
		"fd00::/80":          "cannot be",
		"fc00::/7":           "cannot be",
		"2000::/3":           "cannot be",
		"8000::/1":           "cannot be",
		"::/0":               "cannot be",
		"::/64":              "mapped",
		"::ffff:10.0.0.0/24": "not a CIDR|is not IPv6",
		"64:ff9b::/64":       "NAT64",
		"fe80::/64":          "link-local",
		"febf::/16":          "link-local",
		"ff00::/16":          "multicast",
		"10.9.0.0/16":        "is not IPv6",
	} {
		wantPool(t, s, IPv6, want)
	}
	if checkPool(netip.Prefix{}, IPv4) == nil {
		t.Error("the zero prefix is a pool")
	}
}

func wantPool(t *testing.T, s string, f Family, want string) {
	t.Helper()
	_, err := ParsePool(s, f)
	if want == "" {
		if err != nil {
			t.Errorf("%s: %v", s, err)
		}
		return
	}
	var v *ValueError
	if !errors.As(err, &v) || !errors.Is(err, ErrInvalid) || v.Hint == "" {
		t.Errorf("%s: %v, want a *ValueError with a hint", s, err)
		return
	}
	for w := range strings.SplitSeq(want, "|") {
		if strings.Contains(err.Error(), w) {
			return
		}
	}
	t.Errorf("%s: %q does not say %q", s, err, want)
}

// TestTaskAddrs covers the one rule for addresses of tasks and services.
func TestTaskAddrs(t *testing.T) {
	for s, ok := range map[string]bool{
		"10.0.0.1": true, "127.0.0.1": true, "fd00::1": true, "::1": true, "203.0.113.9": true,
		"0.0.0.0": false, "0.1.2.3": false, "240.0.0.1": false, "255.255.255.255": false, "224.0.0.1": false,
		"169.254.1.1": false,
		"::":          false, "fe80::1": false, "ff02::1": false, "::ffff:10.0.0.1": false, "fd00::1%eth0": false,
	} {
		if err := CheckTaskAddr(netip.MustParseAddr(s)); (err == nil) != ok || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if CheckTaskAddr(netip.Addr{}) == nil {
		t.Error("the zero address is a task's")
	}
}

// TestHostilePoolsAreNotShown: a definition that a peer states is held to what
// the API asks of a person.
func TestHostilePoolsAreNotShown(t *testing.T) {
	for _, pool := range []string{
		"127.0.0.0/8", "240.0.0.0/8", "255.0.0.0/8", "::/0", "2000::/3", "fc00::/7", "8000::/1",
		"10.0.0.0/30",
	} {
		p := netip.MustParsePrefix(pool)
		c := NetworkClaim{NetworkDef: NetworkDef{Name: "n1", Birth: 1}}
		if p.Addr().Is4() {
			c.Subnet4 = p
		} else {
			c.Subnet6 = p
		}
		if _, err := ParseNetwork("n1", string(AppendNetwork(nil, c))); err == nil {
			t.Errorf("%s is taken from gossip", pool)
		}
	}
}

// What a node says of itself in words is left out when it is too long, and what
// else it says is not (S17).
func TestNodeWordsAreShort(t *testing.T) {
	for length, kept := range map[int]bool{0: true, maxNodeWord: true, maxNodeWord + 1: false, 1 << 13: false} {
		word := strings.Repeat("x", length)
		n, err := parseNode(string(AppendNode(nil, NodeInfo{Boot: 7, Version: word, LB: word})))
		if err != nil || n.Boot != 7 || (n.Version == word) != kept || (n.LB == word) != kept {
			t.Errorf("%d bytes: %v, version of %d, LB of %d", length, err, len(n.Version), len(n.LB))
		}
	}
}
