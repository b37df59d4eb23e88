package nft

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/state"
)

// bigTable has n services of ten backends each.
func bigTable(n int) *lb.Table {
	t := table()
	for i := range n {
		s := &lb.Service{Key: lb.Key{
			VIP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Port: 80,
			Proto: state.TCP,
		}, Scheduler: "wrr"}
		for j := range 10 {
			a := netip.AddrFrom4([4]byte{10, byte(100 + j), byte(i >> 8), byte(i)})
			s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrPortFrom(a, 8080), Weight: 1})
		}
		t.Services[s.Key] = s
	}
	return t
}

// load applies a table to an empty kernel.
func (r *rig) load(d *Driver, t *lb.Table) {
	r.T.Helper()
	ops := lb.Diff(lb.NewTable(), t, lb.Policy{})
	for i, err := range d.Apply(r.T.Context(), ops) {
		if err != nil {
			r.T.Fatalf("%s: %v", ops[i], err)
		}
	}
}

// The transaction that carries more than 64 KiB of elements loses none.
func TestLoadOfThousands(t *testing.T) {
	r := newRig(t)
	d := r.driver()
	want := bigTable(300)
	r.load(d, want)
	fresh := r.driver()
	got, err := fresh.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ops := lb.Diff(got, want, lb.Policy{}); len(ops) > 0 || len(got.Services) != 300 {
		t.Errorf("%d services and %d differences, first %v", len(got.Services), len(ops), ops[:min(len(ops), 3)])
	}
	r.NftList()
	if err := fresh.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := r.NftList(); left != "" {
		t.Errorf("after teardown: %s", left)
	}
}

// BenchmarkColdLoad programs services of ten backends into an empty kernel:
// go test ./lb/nft -run xxx -bench ColdLoad -benchtime 1x.
func BenchmarkColdLoad(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("%dx10", n), func(b *testing.B) {
			want := bigTable(n)
			for b.Loop() {
				b.StopTimer()
				r := newRig(b)
				d := r.driver()
				b.StartTimer()
				r.load(d, want)
			}
		})
	}
}

// BenchmarkOneChange changes one service among many: an endpoint that moves,
// an endpoint that comes or goes, which also moves the service to another class
// chain, and ten that come and go one after the other, for which there are no
// chains at first.
func BenchmarkOneChange(b *testing.B) {
	for _, n := range []int{100, 10000} {
		r := newRig(b)
		d := r.driver()
		r.load(d, bigTable(n))
		k := lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: state.TCP}
		spare := lb.Backend{Addr: netip.MustParseAddrPort("10.200.0.1:8080"), Weight: 1}
		first := d.entries[k].svc.Backends[0]
		run := func(name string, ops ...[]lb.Op) {
			b.Run(fmt.Sprintf("%s/%dx10", name, n), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					if errs := d.Apply(b.Context(), ops[i%len(ops)]); errs != nil {
						b.Fatal(errs)
					}
				}
			})
		}
		set := func(b lb.Backend, w uint32) lb.Op {
			return lb.Op{Kind: lb.SetBackend, Key: k, Backend: lb.Backend{Addr: b.Addr, Weight: w}}
		}
		run("swap", []lb.Op{set(spare, 1), set(first, 0)}, []lb.Op{set(first, 1), set(spare, 0)})
		run("resize", []lb.Op{set(spare, 1)}, []lb.Op{set(spare, 0)})
		var grow, shrink [][]lb.Op
		for i := range 10 {
			more := lb.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 201, 0, byte(i)}), 8080)}
			grow, shrink = append(grow, []lb.Op{set(more, 1)}), append(shrink, []lb.Op{set(more, 0)})
		}
		run("grow", append(grow, shrink...)...)
	}
}

// BenchmarkSnapshot reads everything back, as at a restart.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("%dx10", n), func(b *testing.B) {
			r := newRig(b)
			d := r.driver()
			r.load(d, bigTable(n))
			for b.Loop() {
				if _, err := d.Snapshot(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkUsage counts connections, as the balancer does every second while
// something drains.
func BenchmarkUsage(b *testing.B) {
	r := newRig(b)
	d := r.driver()
	s := service(vip4, 0, 0, "10.1.0.2:0")
	r.program(d, table(s))
	const flows = 20000
	r.Node.Do(b, func() error {
		p, err := net.ListenPacket("udp4", ":0")
		if err != nil {
			return err
		}
		defer p.Close()
		for i := range flows {
			// the refusals of others come back here
			_, _ = p.WriteTo([]byte("x"), &net.UDPAddr{IP: vip4.AsSlice(), Port: 1000 + i})
		}
		return nil
	})
	k := lb.Key{VIP: vip4}
	for b.Loop() {
		u, err := d.Usage(b.Context(), []lb.Key{k})
		if err != nil {
			b.Fatal(err)
		}
		if n := u[k].Backends[netip.MustParseAddrPort("10.1.0.2:0")].Active; n < flows*9/10 {
			b.Fatalf("%d connections", n)
		}
	}
}
