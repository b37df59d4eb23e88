package mesh_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"meshd/mesh/config"
	"meshd/mesh/control"
)

// BenchmarkRegister registers tasks by eight clients at once, ten of a service,
// and removes them again: one operation is one task (docs/BENCHMARKS.md).
func BenchmarkRegister(b *testing.B) {
	a := start(b, config.Config{Node: "a"})
	a.network("net", "10.96.0.0/16")
	all := func(f func(i int) error) {
		var next atomic.Int64
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				for i := int(next.Add(1)) - 1; i < b.N; i = int(next.Add(1)) - 1 {
					if err := f(i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		clients.Wait()
	}
	b.ResetTimer()
	all(func(i int) error {
		_, err := a.AddTask(b.Context(), control.AddTask{
			Network: "net", Service: fmt.Sprintf("s%d", i/10), ID: fmt.Sprintf("t%d", i),
			IPs: []string{fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)}, Ports: []string{"80"},
		})
		return err
	})
	added := b.Elapsed()
	all(func(i int) error {
		_, err := a.RemoveTask(b.Context(), control.TaskRef{ID: fmt.Sprintf("t%d", i)})
		return err
	})
	b.ReportMetric(float64(b.N)/added.Seconds(), "added/s")
	b.ReportMetric(float64(b.N)/(b.Elapsed()-added).Seconds(), "removed/s")
}
