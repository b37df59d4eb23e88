package transport

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// openPair opens two transports on loopback addresses.
func openPair(t *testing.T, bind string) (a, b *Sockets) {
	t.Helper()
	for _, s := range []**Sockets{&a, &b} {
		var err error
		if *s, err = Open(netip.MustParseAddrPort(bind)); err != nil {
			t.Skip(err) // no IPv6 here
		}
		t.Cleanup(func() { _ = (*s).Shutdown() })
	}
	return a, b
}

// TestSocketsCarry: datagrams and streams arrive, from the port that others dial.
func TestSocketsCarry(t *testing.T) {
	for bind, to := range map[string]string{"127.0.0.1:0": "127.0.0.1", "[::1]:0": "::1", "0.0.0.0:0": "127.0.0.1"} {
		a, b := openPair(t, bind)
		addr := netip.AddrPortFrom(netip.MustParseAddr(to), uint16(b.Port()))
		if _, err := a.WriteTo([]byte("one"), addr.String()); err != nil {
			t.Fatal(bind, err)
		}
		p := <-b.PacketCh()
		if from := addrPortOf(p.From); string(p.Buf) != "one" || from != netip.AddrPortFrom(addr.Addr(), uint16(a.Port())) {
			t.Errorf("%s: %q from %v, port %d", bind, p.Buf, from, a.Port())
		}
		c, err := a.DialAddressTimeout(memberlist.Address{Addr: addr.String()}, 5*time.Second)
		if err != nil {
			t.Fatal(bind, err)
		}
		s := <-b.StreamCh()
		_, _ = c.Close(), s.Close()
	}
}

// TestSocketsEnd: what is received and nobody takes does not keep the end away.
func TestSocketsEnd(t *testing.T) {
	a, b := openPair(t, "127.0.0.1:0")
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(b.Port())).String()
	_, _ = a.WriteTo([]byte("x"), addr)
	if c, err := net.Dial("tcp", addr); err == nil {
		_ = c.Close()
	}
	if err := b.Shutdown(); err != nil {
		t.Error(err)
	}
	if _, err := b.WriteTo([]byte("x"), addr); !errors.Is(err, net.ErrClosed) {
		t.Errorf("sent after the end: %v", err)
	}
}
