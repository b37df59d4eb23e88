package nft

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"meshd/lb"
)

func (r *rig) helpers() *Helpers {
	r.t.Helper()
	h, err := NewHelpers(Config{NetNS: r.node.path, Log: slog.New(slog.DiscardHandler)}, true)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { h.Close() })
	if err := h.Setup(); err != nil {
		r.t.Fatal(err)
	}
	return h
}

// Rules L1 to L3: what lb/ipvs needs beside IPVS, over a restart.
func TestHelpers(t *testing.T) {
	r := newRig(t)
	if err := ProbeHelpers(Config{NetNS: r.node.path, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Skipf("this kernel cannot: %v", err)
	}
	if left := r.nftList(); left != "" {
		t.Errorf("the probe left %s", left)
	}
	h := r.helpers()
	for _, p := range []lb.Pool{{Prefix: pool4, Src: node4}, {Prefix: pool6, Src: node6}, {Prefix: netip.MustParsePrefix("10.96.8.0/24")}} {
		if err := h.SetPool(p); err != nil {
			t.Fatal(err)
		}
	}
	for i, a := range []netip.Addr{vip4, vip6} {
		for _, mark := range []uint32{0x6d000001, 0x6d000002 + uint32(i)} { // set, then changed
			if err := h.SetMark(a, mark); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := r.helpers()
	if !maps.Equal(again.Marks(), h.Marks()) || len(again.Marks()) != 2 {
		t.Errorf("marks after a restart %v, want %v", again.Marks(), h.Marks())
	}
	for prefix, p := range again.Pools() {
		if want := h.Pools()[prefix]; p.Src != want.Src {
			t.Errorf("pool %s has source %s, want %s", prefix, p.Src, want.Src)
		}
	}
	if found, err := again.Check(); len(again.Pools()) != 3 || err != nil || len(found) > 0 {
		t.Errorf("pools %v, check %v, %v", again.Pools(), found, err)
	}
	if list := r.nftList(); list != "" && !strings.Contains(list, "meta mark set ip daddr map @mark") {
		t.Errorf("no mark rule in %s", list)
	}
	if err := again.DelMark(vip4); err != nil {
		t.Error(err)
	}
	if err := again.DelPool(pool4); err != nil {
		t.Error(err)
	}
	if found, err := h.Check(); err != nil || !strings.Contains(fmt.Sprint(found), "local route of pool 10.96.0.0/16: missing") {
		t.Errorf("the other one's check: %v, %v; want the route", found, err)
	}
	if err := again.Teardown(); err != nil {
		t.Error(err)
	}
	if left := r.nftList(); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func TestSourceMustBeLocal(t *testing.T) {
	r := newRig(t)
	err := r.helpers().SetPool(lb.Pool{Prefix: pool4, Src: netip.MustParseAddr("192.0.2.77")})
	if err == nil || !strings.Contains(err.Error(), "must be configured on this host") {
		t.Errorf("%v; want it to say that the source is not this host's", err)
	}
}

func TestLastAddr(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.96.0.0/16": "10.96.255.255", "10.0.0.0/30": "10.0.0.3", "255.255.255.0/24": "255.255.255.255", "fd96::/64": "fd96::ffff:ffff:ffff:ffff",
	} {
		if got := lastAddr(netip.MustParsePrefix(prefix)).String(); got != want {
			t.Errorf("%s ends at %s, want %s", prefix, got, want)
		}
	}
}
