package resolver

import (
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// R6.3: batches that mix questions for both paths lose and swap nothing.
func TestBatches(t *testing.T) {
	s, b := serve(t, standard(t).self, []string{"net1"})
	if _, ok := b.udp.PacketConn.(*batchConn); !ok {
		t.Fatalf("the socket is a %T", b.udp.PacketConn)
	}
	names := []string{"web.", "tasks.web.", "_http._tcp.web.", "nope.", "db.net1.mesh.internal.", "web.net1."}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			c, err := net.Dial("udp", b.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			for round := range 20 {
				volley(t, c, names, uint16(g<<12|round<<6))
			}
		})
	}
	wg.Wait()
	waitFor(t, func() bool { return s.Stats().InFlight == 0 })
}

// BenchmarkSocket measures questions per second over loopback with 64 in
// flight; the client shares the machine, so compare the cases with each other.
func BenchmarkSocket(b *testing.B) {
	for name, disable := range map[string]bool{"fast": false, "ordinary": true} {
		b.Run(name, func(b *testing.B) {
			_, bound := serve(b, standard(b).self, []string{"net1"}, func(c *Config) { c.DisableFast = disable })
			flood(b, bound.Addr().String())
		})
	}
	b.Run("echo", func(b *testing.B) {
		p, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer p.Close()
		go func() {
			c, buf := p.(*net.UDPConn), make([]byte, 4096)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				c.WriteToUDPAddrPort(buf[:n], from)
			}
		}()
		flood(b, p.LocalAddr().String())
	})
}

func flood(b *testing.B, addr string) {
	c, err := net.Dial("udp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	m, _ := query("web.net1.mesh.internal.", dns.TypeA).Pack()
	buf := make([]byte, 2048)
	b.ResetTimer()
	for sent, got := 0, 0; got < b.N; {
		for sent-got < 64 && sent < b.N {
			binary.BigEndian.PutUint16(m, uint16(sent))
			c.Write(m)
			sent++
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(buf); err != nil {
			got = sent // lost: go on
			continue
		}
		got++
	}
}
