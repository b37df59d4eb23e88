//go:build linux

package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshd/mesh/control"
)

const listing = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.96.238.167:80 wrr
  -> 10.1.1.3:80                  Masq    1      0          4
  -> 10.1.2.3:80                  Masq    0      0          0
UDP  [fd96::1]:53 mh (mh-fallback,mh-port)
  -> [fd21::2]:5353               Masq    70000  0          0
FWM  1828716545 wrr
  -> 10.1.1.4:0                   Masq    1      0          0
FWM  1828716546 IPv6 wrr
`

func TestParseIPVS(t *testing.T) {
	got, err := parseIPVS(listing)
	if err != nil {
		t.Fatal(err)
	}
	want := reals{
		named: map[string]servers{
			"TCP 10.96.238.167:80": {netip.MustParseAddrPort("10.1.1.3:80"): 1, netip.MustParseAddrPort("10.1.2.3:80"): 0},
			"UDP [fd96::1]:53":     {netip.MustParseAddrPort("[fd21::2]:5353"): 70000},
		},
		marks: 2, marked: servers{netip.MustParseAddrPort("10.1.1.4:0"): 1},
	}
	same := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if d := cmp.Diff(want, got, cmp.AllowUnexported(reals{}), same); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for _, bad := range []string{"TCP 1.2.3.4:80 rr\n -> x Masq 1 0 0", "TCP 1.2.3.4:80 rr\n -> 1.2.3.5:80 Masq x 0 0"} {
		if _, err := parseIPVS(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestDifferencesBetweenTableAndIPVS(t *testing.T) {
	backend := func(addr string, weight int) control.LBBackend {
		return control.LBBackend{Address: netip.MustParseAddrPort(addr), Desired: weight}
	}
	table := func(backends ...control.LBBackend) reals {
		return wanted([]control.LBService{{VIP: netip.MustParseAddr("10.96.238.167"), Port: "80/tcp", Backends: backends}})
	}
	for _, tt := range []struct {
		name, held string
		want       reals
		complains  string // empty: not
	}{
		{"equal", "TCP 10.96.238.167:80 wrr\n -> 10.1.1.3:80 Masq 1 0 0", table(backend("10.1.1.3:80", 1)), ""},
		{
			"one drains", "TCP 10.96.238.167:80 wrr\n -> 10.1.1.3:80 Masq 1 0 0\n -> 10.1.1.4:80 Masq 0 3 0",
			table(backend("10.1.1.3:80", 1), backend("10.1.1.4:80", -1)), "",
		},
		{
			"one too many", "TCP 10.96.238.167:80 wrr\n -> 10.1.1.3:80 Masq 1 0 0\n -> 10.1.1.4:80 Masq 1 0 0",
			table(backend("10.1.1.3:80", 1)), "10.1.1.4:80 of weight 1 should not",
		},
		{"one too few", "TCP 10.96.238.167:80 wrr", table(backend("10.1.1.3:80", 1)), "10.1.1.3:80 is missing"},
		{"wrong weight", "TCP 10.96.238.167:80 wrr\n -> 10.1.1.3:80 Masq 2 0 0", table(backend("10.1.1.3:80", 1)), "has weight 2"},
		{"foreign", "UDP 10.96.238.167:80 wrr", newReals(), "UDP 10.96.238.167:80 should not be there"},
		{"missing", "", table(backend("10.1.1.3:80", 1)), "TCP 10.96.238.167:80 is missing"},
		{
			"all ports by two marks", "FWM 1 wrr\n -> 10.1.1.3:0 Masq 1 0 0\nFWM 2 wrr\n -> 10.1.1.3:0 Masq 1 0 0",
			wanted([]control.LBService{
				{Port: "all/tcp", Backends: []control.LBBackend{backend("10.1.1.3:0", 1)}},
				{Port: "all/udp", Backends: []control.LBBackend{backend("10.1.1.3:0", 1)}},
			}), "",
		},
		{"foreign by mark", "FWM 1 wrr", newReals(), "1 services by mark, want 0"},
	} {
		held, err := parseIPVS(tt.held)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		err = differ(tt.want, held)
		if (err == nil) != (tt.complains == "") || (err != nil && !strings.Contains(err.Error(), tt.complains)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.complains)
		}
	}
}
