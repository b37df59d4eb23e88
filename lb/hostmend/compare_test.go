package hostmend

import (
	"testing"

	"meshd/lb/hostcheck"
)

// TestSameRules compares rules of nft as it lists them with those that are wanted:
// what somebody has changed by hand is not the same, though there are as many.
func TestSameRules(t *testing.T) {
	want := func(matches ...[]string) (all []hostcheck.AcceptRule) {
		for _, m := range matches {
			all = append(all, hostcheck.AcceptRule{Program: "nft", Match: m})
		}
		return all
	}
	two := want([]string{"ct", "original", "ip", "daddr", "{ 10.97.0.0/16, 172.30.1.0/24, 10.96.0.0/16 }"},
		[]string{"ct", "original", "ip6", "daddr", "fd96::/64"})
	for name, c := range map[string]struct {
		have []string
		want bool
	}{
		"as nft writes it":  {[]string{"ct original ip6 daddr fd96::/64", "ct original ip daddr { 10.96.0.0/15, 172.30.1.0/24 }"}, true},
		"as a range":        {[]string{"ct original ip6 daddr fd96::-fd96::ffff:ffff:ffff:ffff", "ct original ip daddr { 10.96.0.0-10.97.255.255, 172.30.1.0/24 }"}, true},
		"another pool":      {[]string{"ct original ip6 daddr fd97::/64", "ct original ip daddr { 10.96.0.0/15, 172.30.1.0/24 }"}, false},
		"a wider pool":      {[]string{"ct original ip6 daddr fd96::/64", "ct original ip daddr { 10.96.0.0/14, 172.30.1.0/24 }"}, false},
		"a part of it":      {[]string{"ct original ip6 daddr fd96::/64", "ct original ip daddr { 10.96.0.0/16, 172.30.1.0/24 }"}, false},
		"of another kind":   {[]string{"ip6 saddr fd96::/64", "ct original ip daddr { 10.96.0.0/15, 172.30.1.0/24 }"}, false},
		"one of them twice": {[]string{"ct original ip6 daddr fd96::/64", "ct original ip6 daddr fd96::/64"}, false},
		"one too many":      {[]string{"ct original ip6 daddr fd96::/64", "ct original ip6 daddr fd96::/64", "ct original ip daddr { 10.96.0.0/15, 172.30.1.0/24 }"}, false},
		"nothing":           {nil, false},
	} {
		var have []listed
		for _, h := range c.have {
			have = append(have, listed{match: h})
		}
		if sameRules(have, two) != c.want {
			t.Errorf("%s: the same %v, want %v", name, !c.want, c.want)
		}
	}
	if !sameRules(nil, nil) {
		t.Error("nothing is not nothing")
	}
}
