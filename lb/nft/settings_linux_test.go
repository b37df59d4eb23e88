package nft

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"meshd/lb"
	"meshd/state"
)

// Rule L1: what is written of a service tells the whole of it.
func TestMemoTellsAll(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := &lb.Service{
			Key:       lb.Key{VIP: vip4, Port: 80, Proto: state.TCP},
			Scheduler: rapid.SampledFrom([]string{"rr", "wrr", "lc", "wlc", "sh", "mh", "sed", "nq"}).Draw(rt, "scheduler"),
			Affinity:  rapid.SampledFrom([]time.Duration{0, time.Second, 90 * time.Second, time.Hour}).Draw(rt, "affinity"),
		}
		scale := rapid.SampledFrom([]uint32{1, 1, 10, 60000}).Draw(rt, "scale")
		for i := range rapid.IntRange(0, 12).Draw(rt, "backends") {
			weight := rapid.Uint32Range(0, 3).Draw(rt, "weight")
			if scale > 1 {
				weight *= rapid.Uint32Range(1, scale).Draw(rt, "factor") % (maxWeight/3 + 1)
			}
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80)
			s.Backends = append(s.Backends, lb.Backend{Addr: a, Weight: weight})
		}
		wrote := &entry{svc: s, there: true, slots: assignSlots(s, nil)}
		wrote.settings = settingsOf(s, wrote.slots)
		if len(wrote.slots) > 0 {
			wrote.class = classOf(s, len(wrote.slots))
		}
		read := &entry{
			svc: &lb.Service{Key: s.Key}, there: true, class: wrote.class, slots: slices.Clone(wrote.slots),
			settings: wrote.settings,
		}
		read.describe()
		if d := cmp.Diff(s, read.svc, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			rt.Fatalf("note %q, parked %v (-wrote +read):\n%s", wrote.settings.comment, wrote.settings.parked, d)
		}
	})
}

func FuzzNote(f *testing.F) {
	for _, seed := range []string{
		"", "wlc", "wrr affinity 1m30s", "sh weight 5", "mh affinity 1h0m0s weight 65535",
		"wrr affinity -1s", "x y",
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, note string, hash bool) {
		s, ok := readComment(note, hash)
		if !ok {
			return
		}
		svc := &lb.Service{Scheduler: s.scheduler, Affinity: s.affinity}
		if strings.HasSuffix(s.scheduler, damaged) {
			return
		}
		if again, ok := readComment(commentOf(svc, hash, s.unit), hash); !ok || again != s {
			t.Errorf("note %q reads %+v, then %+v", note, s, again)
		}
		if s.unit == 0 || s.unit > maxWeight || s.affinity < 0 {
			t.Errorf("note %q reads %+v", note, s)
		}
	})
}
