package ipvs

import (
	"log/slog"
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/state"
)

// Sizes of the benchmarks on a real kernel. Each starts in a namespace of its
// own: IPVS remembers deleted backends, which makes later ones slow. Other
// writers of the same table are in test/bench/lb.
const (
	benchServices = 10000
	benchBackends = 10
)

func benchTable() *lb.Table {
	t := lb.NewTable()
	t.Pools[pool4] = lb.Pool{Prefix: pool4}
	for i := range benchServices {
		k := lb.Key{VIP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Port: 80, Proto: state.TCP}
		s := &lb.Service{Key: k, Scheduler: "wrr"}
		for j := range benchBackends {
			a := netip.AddrFrom4([4]byte{10, byte(1 + j), byte(i >> 8), byte(1 + i)})
			s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrPortFrom(a, 80), Weight: 1})
		}
		t.Services[k] = s
	}
	return t
}

func benchDriver(b *testing.B) (*Driver, *testNamespace) {
	b.Helper()
	n := onKernel(b)
	d, err := New(Config{NetNS: n.path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	if err := d.Setup(b.Context()); err != nil {
		b.Fatal(err)
	}
	return d, n
}

func mustApply(b *testing.B, d *Driver, ops []lb.Op) {
	b.Helper()
	for i, err := range d.Apply(b.Context(), ops) {
		if err != nil {
			b.Fatal(ops[i], err)
		}
	}
}

func BenchmarkKernelCold(b *testing.B) {
	ops := lb.Diff(lb.NewTable(), benchTable(), lb.Policy{})
	for b.Loop() {
		b.StopTimer()
		d, _ := benchDriver(b)
		mustApply(b, d, ops[:1])
		b.StartTimer()
		mustApply(b, d, ops[1:])
	}
}

func BenchmarkKernelChange(b *testing.B) {
	d, _ := benchDriver(b)
	table := benchTable()
	mustApply(b, d, lb.Diff(lb.NewTable(), table, lb.Policy{}))
	op := lb.Op{
		Kind: lb.SetBackend, Key: table.Keys()[7],
		Backend: lb.Backend{Addr: table.Services[table.Keys()[7]].Backends[3].Addr},
	}
	for b.Loop() {
		op.Backend.Weight = 1 + op.Backend.Weight%100
		mustApply(b, d, []lb.Op{op})
	}
}

func BenchmarkKernelVerify(b *testing.B) {
	d, _ := benchDriver(b)
	table := benchTable()
	mustApply(b, d, lb.Diff(lb.NewTable(), table, lb.Policy{}))
	for b.Loop() {
		got, err := d.Snapshot(b.Context())
		if err != nil || len(got.Services) != benchServices {
			b.Fatal(len(got.Services), err)
		}
	}
}

func BenchmarkKernelUsage(b *testing.B) {
	d, _ := benchDriver(b)
	table := benchTable()
	mustApply(b, d, lb.Diff(lb.NewTable(), table, lb.Policy{}))
	keys := table.Keys()
	for b.Loop() {
		if _, err := d.Usage(b.Context(), keys); err != nil {
			b.Fatal(err)
		}
	}
}
