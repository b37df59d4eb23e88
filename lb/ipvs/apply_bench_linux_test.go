package ipvs

import (
	"testing"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
)

// quietKernel agrees to everything at once: what is left is our own work.
type quietKernel struct{ *fakeKernel }

func (quietKernel) Do([]genl.Request) []error { return nil }

func BenchmarkApply(b *testing.B) {
	ops := lb.Diff(lb.NewTable(), benchTable(), lb.Policy{})
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		d := newFake(b, newFakeKernel(), newFakePools())
		d.kernel.kernel = quietKernel{newFakeKernel()}
		b.StartTimer()
		if errs := d.Apply(b.Context(), ops); errs != nil {
			b.Fatal(errs)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ops)), "ns/operation")
}
