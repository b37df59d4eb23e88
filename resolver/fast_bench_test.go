package resolver

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/miekg/dns"

	"meshd/state"
)

// many is a network of n services with a VIP each.
func many(tb testing.TB, n int) *world {
	w := newWorld(tb, "net1")
	for i := 0; i < n; {
		var cs []state.Change
		for range min(n-i, 10_000) {
			cs = append(cs, vip(fmt.Sprintf("svc%06d", i), fmt.Sprintf("10.%d.%d.%d", 64+i>>16, i>>8&255, i&255), ""))
			i++
		}
		w.commit("a", "net1", cs...)
	}
	return w
}

// BenchmarkFastPathNames asks for many names in random order, in batches as the
// socket's reader does and one by one, and reports what a packed name costs.
func BenchmarkFastPathNames(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		_, bound := serve(b, many(b, n).self, []string{"net1"}, func(c *Config) { c.FastBytes = 1 << 30 })
		f := newFastPath(bound)
		var packets [][]byte
		for i := range n {
			p, _ := query(fmt.Sprintf("svc%06d.net1.mesh.internal.", i), dns.TypeA).Pack()
			packets = append(packets, p)
		}
		rand.Shuffle(n, func(i, j int) { packets[i], packets[j] = packets[j], packets[i] })
		buf := make([]byte, 4096)
		b.Run(fmt.Sprintf("%d/pack", n), func(b *testing.B) {
			b.ReportAllocs()
			k := 0
			for b.Loop() {
				if k%n == 0 {
					f.forget()
				}
				f.answer(buf, copy(buf, packets[k%n]), hostAddr)
				k++
			}
		})
		for _, p := range packets {
			if f.answer(buf, copy(buf, p), hostAddr) == 0 {
				b.Fatal("not answered")
			}
		}
		sc := f.fixed
		b.Run(fmt.Sprintf("%d/single", n), func(b *testing.B) {
			k := 0
			for b.Loop() {
				f.answer(buf, copy(buf, packets[k%n]), hostAddr)
				k++
			}
		})
		b.Run(fmt.Sprintf("%d/batch", n), func(b *testing.B) {
			qs, bufs := make([]asked, 32), make([][4160]byte, 32)
			k := 0
			for b.Loop() {
				if k%32 == 0 {
					f.begin()
					for i := range qs {
						f.read(&qs[i], bufs[i][:], copy(bufs[i][:], packets[(k+i)%n]), hostAddr)
					}
					f.prefetch(qs)
				}
				f.reply(&qs[k%32], bufs[k%32][:])
				k++
			}
			b.ReportMetric(float64(sc.bytes())/float64(n), "bytes/name")
		})
		b.Run(fmt.Sprintf("%d/changed", n), func(b *testing.B) {
			b.ReportAllocs()
			k := 0
			for b.Loop() {
				f.fixed.batch, f.fixed.version = f.batch+1, f.fixed.version+1 // as if the view counted a change
				f.answer(buf, copy(buf, packets[k%n]), hostAddr)
				k++
			}
		})
	}
}
