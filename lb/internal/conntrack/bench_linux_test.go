package conntrack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"meshd/lb"
	"meshd/lb/internal/linktest"
)

// BenchmarkConntrack counts and cuts the connections of services beside 250,000
// of others, with and without the kernel's filter: sudo go test ./lb/conntrack -run
// xxx -bench Conntrack -benchtime 5x.
func BenchmarkConntrack(b *testing.B) {
	r := newRig(b)
	r.crowd(250_000)
	for _, vips := range []int{1, filteredPasses} {
		for _, filter := range []bool{true, false} {
			usage := map[lb.Key]lb.Usage{}
			for i, a := 0, linktest.VIP4; i < vips; i, a = i+1, a.Next() {
				usage[lb.Key{VIP: a}] = lb.Usage{Backends: map[netip.AddrPort]lb.BackendUsage{}}
			}
			b.Run(fmt.Sprintf("vips=%d/filter=%v", vips, filter), func(b *testing.B) {
				q := r.kernel
				q.unfiltered = !filter
				for b.Loop() {
					if err := Count(q, usage, none, none); err != nil {
						b.Fatal(err)
					}
				}
				if q.unfiltered == filter {
					b.Fatal("the kernel does not filter")
				}
			})
		}
	}
}

// crowd makes conntrack of the node remember n connections that are nobody's.
func (r *rig) crowd(n int) {
	r.T.Helper()
	const ports = 50_000 // of one address
	r.Node.Do(r.T, func() error {
		if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", []byte("3600"), 0o644); err != nil {
			return err
		}
		for made := 0; made < n; made += ports {
			p, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", 20+made/ports))
			if err != nil {
				return err
			}
			for i := range min(ports, n-made) {
				_, _ = p.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(made/ports)), Port: 1000 + i})
			}
			p.Close()
		}
		count, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		if got, _ := strconv.Atoi(strings.TrimSpace(string(count))); got < n {
			r.T.Skipf("conntrack remembers %d of %d connections; raise net.netfilter.nf_conntrack_max", got, n)
		}
		return nil
	})
}
