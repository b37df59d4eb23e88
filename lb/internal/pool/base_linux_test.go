package pool

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"meshd/lb"
	"meshd/lb/nftconn"
	"meshd/state"
)

func allTCP(a netip.Addr) lb.Key { return lb.Key{VIP: a, Proto: state.TCP} }
func allUDP(a netip.Addr) lb.Key { return lb.Key{VIP: a, Proto: state.UDP} }

// Rules L1 to L3: what lb/ipvs needs beside IPVS, over a restart.
func TestHelpers(t *testing.T) {
	r := newRig(t)
	if err := Probe(r.config()); err != nil {
		t.Skipf("this kernel cannot: %v", err)
	}
	if left := r.NftList(); left != "" {
		t.Errorf("the probe left %s", left)
	}
	h := r.marked()
	for _, p := range []lb.Pool{
		{Prefix: pool4, Src: node4},
		{Prefix: pool6, Src: node6},
		{Prefix: netip.MustParsePrefix("10.96.8.0/24")},
	} {
		if err := h.SetPool(p); err != nil {
			t.Fatal(err)
		}
	}
	for i, a := range []netip.Addr{vip4, vip6} {
		for _, mark := range []uint32{0x6d000001, 0x6d000002 + uint32(i)} { // set, then changed
			for j, k := range []lb.Key{allTCP(a), allUDP(a)} {
				if err := h.SetMark(k, mark+uint32(4*j)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	again := r.marked()
	if !maps.Equal(again.Marks(), h.Marks()) || len(again.Marks()) != 4 {
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
	if list := r.NftList(); list != "" && !strings.Contains(list, "meta mark set ip daddr . meta l4proto map @marks") {
		t.Errorf("no mark rule in %s", list)
	}
	moved := lb.Key{VIP: vip6, Proto: 255}
	for range 2 { // the second time there is nothing to move
		if err := again.MoveMark(allTCP(vip6), moved); err != nil {
			t.Error(err)
		}
	}
	if err := again.MoveMark(allUDP(vip6), moved); err != nil { // over another one
		t.Error(err)
	}
	if got := r.marked().Marks(); !maps.Equal(got, again.Marks()) || len(got) != 3 || got[moved] != 0x6d000007 {
		t.Errorf("after moving: kernel %v, known %v", got, again.Marks())
	}
	if err := again.DelMark(allTCP(vip4)); err != nil {
		t.Error(err)
	}
	if err := again.DelPool(pool4); err != nil {
		t.Error(err)
	}
	if found, err := h.Check(); err != nil || !strings.Contains(fmt.Sprint(found),
		"local route of pool 10.96.0.0/16: missing") {
		t.Errorf("the other one's check: %v, %v; want the route", found, err)
	}
	if err := again.Teardown(); err != nil {
		t.Error(err)
	}
	if left := r.NftList(); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// Rule L1: what a version left that had one mark per address is replaced, and
// pools stay; looking at it is no error.
func TestMarksOfAnotherShape(t *testing.T) {
	r := newRig(t)
	old, err := NewMarked(r.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { old.Close() })
	c := old.Base.conn.Nftables
	for i := range nftconn.Families {
		set := *old.marks.old(i)
		set.KeyType, set.Concatenation = nftconn.Families[i].Addr, false
		c.AddTable(old.Base.table[i])
		must(t, c.AddSet(old.guard.pool[i], nil))
		a := []netip.Addr{vip4, vip6}[i]
		must(t, c.AddSet(&set, []nftables.SetElement{{Key: a.AsSlice(), Val: []byte{1, 0, 0, 0x6d}}}))
		for _, chain := range oldMarkChains(old.Base.table[i]) {
			c.AddChain(chain)
			c.AddRule(&nftables.Rule{Table: old.Base.table[i], Chain: chain, Exprs: []expr.Any{
				nftconn.Families[i].LoadDestination(nftconn.FirstRegister),
				&expr.Lookup{
					SourceRegister: nftconn.FirstRegister, DestRegister: nftconn.FirstRegister, IsDestRegSet: true, SetName: set.Name,
					SetID: set.ID,
				},
			}})
		}
	}
	must(t, old.Base.conn.Commit())
	must(t, old.routes.setRoute(lb.Pool{Prefix: pool4, Src: node4}))

	if err := old.Discover(); err != nil || !old.Owns(vip4) || len(old.Marks()) > 0 {
		t.Errorf("looked: pools %v, marks %v, %v", old.Pools(), old.Marks(), err)
	}
	for range 2 { // the second time there is nothing to replace
		h := r.marked()
		if !h.Owns(vip4) {
			t.Errorf("pools %v", h.Pools())
		}
		for _, k := range []lb.Key{allTCP(vip4), allUDP(vip6)} {
			must(t, h.SetMark(k, 0x6d000007))
		}
		if found, err := h.Check(); err != nil || len(found) > 0 || len(h.Marks()) != 2 {
			t.Errorf("marks %v, check %v, %v", h.Marks(), found, err)
		}
		if list := r.NftList(); strings.Contains(list, "chain mark_prerouting") ||
			strings.Contains(list, "chain mark_output") {
			t.Errorf("chains of the older version stay: %s", list)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSourceMustBeLocal(t *testing.T) {
	r := newRig(t)
	err := r.marked().SetPool(lb.Pool{Prefix: pool4, Src: netip.MustParseAddr("192.0.2.77")})
	if err == nil || !strings.Contains(err.Error(), "must be configured on this host") {
		t.Errorf("%v; want it to say that the source is not this host's", err)
	}
}

func TestLastAddr(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.96.0.0/16": "10.96.255.255", "10.0.0.0/30": "10.0.0.3", "255.255.255.0/24": "255.255.255.255",
		"fd96::/64": "fd96::ffff:ffff:ffff:ffff",
	} {
		if got := lastAddr(netip.MustParsePrefix(prefix)).String(); got != want {
			t.Errorf("%s ends at %s, want %s", prefix, got, want)
		}
	}
}
