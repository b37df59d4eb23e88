package box

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"meshd/mesh/sandbox"
)

// here is a namespace that is the test's own.
type here struct{ Namespace }

func (here) Do(f func() error) error { return f() }

// engine is a name server as a container engine has it, on a port of 127.0.0.11.
func engine(t *testing.T, answer string) (stop func()) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(sandbox.ServerAddr.Addr(), 0)))
	if err != nil {
		t.Skip(err)
	}
	started := make(chan struct{})
	s := &dns.Server{
		PacketConn: conn, NotifyStartedFunc: func() { close(started) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			rr, _ := dns.NewRR(q.Question[0].Name + " 600 IN A " + answer)
			m.Answer = append(m.Answer, rr)
			_ = w.WriteMsg(m)
		}),
	}
	go func() { _ = s.ActivateAndServe() }()
	<-started
	return sync.OnceFunc(func() { _ = s.Shutdown() })
}

// A bare name that the mesh does not know is asked of the engine's server, whose port is
// another one after each start of the engine.
func TestFormerNameServer(t *testing.T) {
	b := &Sandbox{ns: here{}}
	b.names.b = b
	ask := func() (string, error) {
		m, err := b.ask(t.Context(), new(dns.Msg).SetQuestion("db.", dns.TypeA))
		if err != nil || m == nil {
			return "", err
		}
		return m.Answer[0].(*dns.A).A.String(), nil
	}
	first := engine(t, "172.18.0.3")
	if got, err := ask(); got != "172.18.0.3" {
		t.Fatalf("%q, %v", got, err)
	}
	first()
	second := engine(t, "172.18.0.4")
	defer second()
	if got, err := ask(); got != "172.18.0.4" {
		t.Errorf("after a restart of the engine: %q, %v", got, err)
	}
	b.former.running = bareAtOnce
	if _, err := ask(); !errors.Is(err, errBusy) {
		t.Errorf("too many at once: %v", err)
	}
	b.former.running = 0
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.ask(ctx, new(dns.Msg).SetQuestion("db.", dns.TypeA)); err == nil {
		t.Error("asked after the end")
	}
}

// The table of sockets is the kernel's, and what is in it the container's.
func TestListening(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
	for _, x := range []struct {
		table string
		want  []uint16
	}{
		{"", nil},
		{head + " 1: 0B00007F:A2C3 00000000:0000 07\n 2: 0B00007F:0035 00000000:0000 07\n", []uint16{0xA2C3}},
		{head + " 1: 00000000:A2C3 00000000:0000 07\n", nil},                   // on every address
		{head + " 1: 0B00007F:A2C3 0B00007F:1234 07\n", nil},                   // connected: a client
		{head + " 1: 0B00007F:zz 00000000:0000\n 2: \n 3: 0B00007F\nx\n", nil}, // none of the kernel's
		{head + strings.Repeat(" 1: 0B00007F:A2C3 00000000:0000 07\n", 9), []uint16{0xA2C3, 0xA2C3, 0xA2C3, 0xA2C3}},
	} {
		if got := listening(strings.NewReader(x.table), sandbox.ServerAddr.Addr(), 53); !slices.Equal(got, x.want) {
			t.Errorf("%q: %v, want %v", x.table, got, x.want)
		}
	}
}
