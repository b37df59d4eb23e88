package state

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

var pool28 = NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.9.0.0/28"), Birth: 1}

func drawClaim(rt *rapid.T) VIPClaim {
	return VIPClaim{
		Service: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "service"),
		VIP4:    netip.AddrFrom4([4]byte{10, 9, 0, byte(rapid.IntRange(1, 4).Draw(rt, "host"))}),
		Pinned:  rapid.IntRange(0, 3).Draw(rt, "pinned") == 0,
		Birth:   uint64(rapid.IntRange(1, 4).Draw(rt, "birth")),

		Provisional: rapid.Bool().Draw(rt, "provisional"),
	}
}

// vipMap is the canonical and the other addresses of every service.
func vipMap(v *vipTable) map[string]string {
	m := map[string]string{}
	for s := range v.bySvc {
		a := v.assign(s)
		m[s] = fmt.Sprint(a.Canonical.VIP4, a.Others)
	}
	return m
}

// TestSameClaimsSameVIPs covers V3, V4 and V5 on the claims alone.
func TestSameClaimsSameVIPs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		claims := rapid.SliceOfN(rapid.Custom(drawClaim), 1, 8).Draw(rt, "claims")
		v := newVIPTable(pool28)
		for _, c := range claims {
			v.add(c, "", func(string) {})
		}
		other := newVIPTable(pool28)
		for _, c := range rapid.Permutation(append(claims, claims[0])).Draw(rt, "order") {
			other.add(c, "", func(string) {})
		}
		other.remove(claims[0], func(string) {})
		if !maps.Equal(vipMap(v), vipMap(other)) {
			rt.Fatalf("V3: %v and %v from the same claims", vipMap(v), vipMap(other))
		}
		at := map[netip.Addr]string{}
		for s := range v.bySvc {
			a := v.assign(s)
			for _, c := range append(a.Others, a.Canonical) {
				if c.VIP4.IsValid() && at[c.VIP4] != "" && at[c.VIP4] != s {
					rt.Fatalf("V5: %s belongs to %q and %q", c.VIP4, at[c.VIP4], s)
				}
				at[c.VIP4] = s
			}
		}
		// V4: one more claim of x moves y only if it wins y's address.
		before, first := vipMap(v), map[string]VIPClaim{}
		for s := range v.bySvc {
			first[s] = v.assign(s).Canonical
		}
		x := drawClaim(rt)
		changed := map[string]bool{}
		v.add(x, "", func(s string) { changed[s] = true })
		for s, was := range before {
			now := vipMap(v)[s]
			if s != x.Service && now != was && (v.assign(x.Service).Canonical.Service == "" || !v.holds(x.Service, x.VIP4)) {
				rt.Fatalf("V4: %+v moved %q from %s to %s", x, s, was, now)
			}
			if now != was && !changed[s] {
				rt.Fatalf("%q changed and was not told", s)
			}
			if had := first[s]; x.Provisional && !x.Pinned && now != was && !had.Provisional && had.Service != "" &&
				v.assign(s).Canonical != had {
				rt.Fatalf("V11: the provisional %+v moved %q from %+v", x, s, had)
			}
		}
		v.remove(x, func(string) {})
		if !maps.Equal(before, vipMap(v)) {
			rt.Fatalf("V4: removing %+v did not undo it", x)
		}
	})
}

// TestAllocate covers V1 and V7 in pools of every size.
func TestAllocate(t *testing.T) {
	for _, pool := range []string{"10.9.0.0/29", "10.9.0.0/28", "10.9.0.0/26", "10.9.0.0/24"} {
		d := NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix(pool)}
		size := uint64(1) << (32 - d.Subnet4.Bits())
		taken := map[netip.Addr]bool{}
		for i := range size - lowBand(size) - 1 {
			a, err := allocate(&d, fmt.Sprint("s", i), func(a netip.Addr) bool { return !taken[a] })
			if err != nil || taken[a] || !d.Subnet4.Contains(a) || !d.Subnet4.Contains(a.Next()) || a == d.Subnet4.Addr() {
				t.Fatalf("%s: address %d is %s: %v", pool, i, a, err)
			}
			taken[a] = true
		}
		if _, err := allocate(&d, "late", func(a netip.Addr) bool { return !taken[a] }); !errors.Is(err, ErrExhausted) {
			t.Fatalf("V7: %s: %v", pool, err)
		}
	}
	d := NetworkDef{Name: "net", Subnet6: netip.MustParsePrefix("fd00:96::/48")}
	if a := VIP6(&d, "web"); !d.Subnet6.Contains(a) || a != VIP6(&d, "web") || a == VIP6(&d, "db") {
		t.Fatalf("V1: %s", a)
	}
}

// TestUncontestedClaimIsSmall holds what an address costs whose claim nobody
// contests, which is nearly every one: a table has as many as it has services.
func TestUncontestedClaimIsSmall(t *testing.T) {
	const services, most = 10_000, 800 // bytes each, with both addresses
	claims := make([]VIPClaim, services)
	for i := range claims {
		at := [16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}
		claims[i] = VIPClaim{
			Service: fmt.Sprint("s", i), VIP4: netip.AddrFrom4([4]byte{10, 9, at[14], at[15]}),
			VIP6: netip.AddrFrom16(at), Birth: 1,
		}
	}
	v := newVIPTable(pool28)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, c := range claims {
		v.add(c, "", func(string) {})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / services
	t.Logf("%d bytes for a claim nobody contests", each)
	if each > most {
		t.Errorf("%d bytes for a claim nobody contests, at most %d", each, most)
	}
	runtime.KeepAlive(v)
}
