//go:build !race

package sim

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// attacker is a peer that speaks to hosts with whatever bytes it likes.
type attacker struct {
	port *Port
	rng  *rand.Rand
	open []net.Conn
}

// garbage is a message of a random kind of memberlist's, with random content.
func (a *attacker) garbage(most int) []byte {
	b := make([]byte, 1+a.rng.IntN(most))
	for i := range b {
		b[i] = byte(a.rng.Uint32())
	}
	b[0] = byte(a.rng.IntN(16))
	return b
}

// user is a user message over a stream that claims a length.
func user(claimed uint32, body []byte) []byte {
	head := []byte{8, 0x81, 0xaa, 'U', 's', 'e', 'r', 'M', 's', 'g', 'L', 'e', 'n', 0xce}
	head = append(head, byte(claimed>>24), byte(claimed>>16), byte(claimed>>8), byte(claimed))
	return append(head, body...)
}

func (a *attacker) stream(to netip.AddrPort, b []byte) {
	c, err := a.port.DialAddressTimeout(memberlist.Address{Addr: to.String()}, time.Second)
	if err != nil {
		return
	}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.Write(b)
	a.open = append(a.open, c) // and never says more
}

// TestHostilePeer: G8 for whole hosts. Garbage of every kind, lengths that are
// lies, messages of 20 MiB and streams that say nothing do not end, stop or
// bloat a node.
func TestHostilePeer(t *testing.T) {
	calm(t, MeshOptions{Nodes: 4}, func(t *testing.T, m *Mesh) {
		a := &attacker{port: m.Net.Open(99, netip.MustParseAddrPort("10.66.6.6:7946")), rng: rand.New(rand.NewPCG(1, 1))}
		victim := m.Machine(1)
		before := heap()
		for range 3000 {
			if _, err := a.port.WriteToAddress(a.garbage(1400), memberlist.Address{Addr: victim.Addr.String()}); err != nil {
				t.Fatal(err)
			}
			m.Run(time.Millisecond)
		}
		for i := range 300 {
			switch i % 4 {
			case 0:
				a.stream(victim.Addr, a.garbage(4096))
			case 1:
				a.stream(victim.Addr, user(20<<20, a.garbage(4096)))
			case 2:
				a.stream(victim.Addr, user(0xffffffff, nil))
			case 3:
				a.stream(victim.Addr, nil)
			}
		}
		a.stream(victim.Addr, user(20<<20, make([]byte, 20<<20)))
		a.stream(victim.Addr, user(7<<20, a.garbage(7<<20)))
		if err := victim.Commit(Endpoint("x", "web", 1)); err != nil {
			t.Fatal(err)
		}
		within(t, m, "a change reaches all meanwhile", time.Second, m.Equal)
		s := victim.Host.Stats()
		m.Run(time.Minute)
		for _, c := range a.open {
			_ = c.Close()
		}
		a.open = nil
		m.Run(time.Minute)
		within(t, m, "whole afterwards", 5*time.Second, m.Whole)
		t.Logf("streams refused %d, too long or harmful %d, packets malformed %d; heap %d → %d KiB",
			s.Refused, s.Rejected, victim.Core.Stats.Malformed, before>>10, heap()>>10)
		if s.Refused == 0 || heap() > before+(8<<20) {
			t.Errorf("unbounded: refused %d streams, heap grew from %d to %d", s.Refused, before, heap())
		}
		final(t, m)
	})
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
