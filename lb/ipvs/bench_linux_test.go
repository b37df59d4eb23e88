package ipvs

import (
	"log/slog"
	"net/netip"
	"testing"

	mobyipvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
	"meshd/state"
)

// Sizes of the benchmarks on a real kernel. Each starts in a namespace of its
// own: IPVS remembers deleted backends, which makes later ones slow.
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

func benchDriver(b *testing.B) (*Driver, *namespace) {
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
	op := lb.Op{Kind: lb.SetBackend, Key: table.Keys()[7], Backend: lb.Backend{Addr: table.Services[table.Keys()[7]].Backends[3].Addr}}
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

// BenchmarkKernelRaw only writes: messages of one shape, patched in place,
// whose answers nobody reads.
func BenchmarkKernelRaw(b *testing.B) {
	table := benchTable()
	var reqs []genl.Request
	for _, k := range table.Keys() {
		s := table.Services[k]
		reqs = append(reqs, genl.Request{Command: genl.NewService, Service: toService(s, idOf(k))})
		for _, be := range s.Backends {
			reqs = append(reqs, genl.Request{Command: genl.NewDestination, Service: genl.Service{ID: idOf(k)}, Destination: genl.Destination{Addr: be.Addr, Weight: 1}})
		}
	}
	for b.Loop() {
		b.StopTimer()
		_, n := benchDriver(b)
		c, err := genl.Dial(n.inside, 10e9)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if errs := c.Do(reqs); errs != nil {
			b.Fatal("refused")
		}
		b.StopTimer()
		_ = c.Close()
		b.StartTimer()
	}
}

func BenchmarkKernelMoby(b *testing.B) {
	table := benchTable()
	for b.Loop() {
		b.StopTimer()
		_, n := benchDriver(b)
		h, err := mobyipvs.New(n.path)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for _, k := range table.Keys() {
			s := &mobyipvs.Service{
				Address: k.VIP.AsSlice(), Port: k.Port, Protocol: uint16(k.Proto), AddressFamily: unix.AF_INET,
				SchedName: "wrr", Netmask: 0xffffffff,
			}
			if err := h.NewService(s); err != nil {
				b.Fatal(err)
			}
			for _, be := range table.Services[k].Backends {
				d := &mobyipvs.Destination{Address: be.Addr.Addr().AsSlice(), Port: be.Addr.Port(), Weight: 1, AddressFamily: unix.AF_INET}
				if err := h.NewDestination(s, d); err != nil {
					b.Fatal(err)
				}
			}
		}
		h.Close()
	}
}
