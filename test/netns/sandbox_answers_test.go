//go:build linux

package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/control"
	"meshd/test/fleet"
)

// TestSandboxLargeAnswers asks for more than fits into a datagram.
func TestSandboxLargeAnswers(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 1)
	n := nodes[0]
	createNetwork(t, nodes)
	const many = 150
	for i := range many {
		_, err := n.API.AddTask(t.Context(), control.AddTask{
			Network: network, Service: "many",
			IPs: []string{fmt.Sprintf("10.9.0.%d", i+1)}, Ports: []string{"80"},
		})
		must(t, err)
	}
	task := sandboxed(t, network, "web", n)[0]
	for proto, check := range map[string]func(m *dns.Msg) bool{
		"udp": func(m *dns.Msg) bool { return m.Truncated && len(m.Answer) > 0 && len(m.Answer) < many },
		"tcp": func(m *dns.Msg) bool { return !m.Truncated && len(m.Answer) == many },
	} {
		c, err := task.Dial(t.Context(), proto, task.DNS().String())
		must(t, err)
		q := new(dns.Msg).SetQuestion("tasks.many.", dns.TypeA).SetEdns0(1232, false)
		m, _, err := (&dns.Client{Net: proto, UDPSize: 4096, Timeout: 5 * time.Second}).ExchangeWithConnContext(t.Context(),
			q, &dns.Conn{Conn: c})
		must(t, errors.Join(err, c.Close()))
		if !check(m) {
			t.Errorf("over %s: %d answers of %d, truncated: %v", proto, len(m.Answer), many, m.Truncated)
		}
	}
}

// echoServer serves lines inside a task, for as long as the test runs.
func echoServer(t *testing.T, task *fleet.Task) (port uint16) {
	t.Helper()
	l, err := task.Listen(t.Context(), "tcp4", task.Addr.String()+":0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 64)
				for {
					k, err := c.Read(b)
					if err != nil {
						return
					}
					_, _ = c.Write(b[:k])
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// echoes sends a word over an open connection and wants it back.
func echoes(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("word")); err != nil {
		return err
	}
	b := make([]byte, 8)
	k, err := c.Read(b)
	if err == nil && string(b[:k]) != "word" {
		err = fmt.Errorf("got back %q", b[:k])
	}
	return err
}

// asks resolves a name over an open socket.
func asks(c net.Conn, name string, want netip.Addr) error {
	_ = c.SetDeadline(time.Now().Add(time.Second))
	conn := &dns.Conn{Conn: c}
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	if err := conn.WriteMsg(q); err != nil {
		return err
	}
	m, err := conn.ReadMsg()
	for err == nil && m.Id != q.Id { // of a question that was given up
		m, err = conn.ReadMsg()
	}
	if err != nil {
		return err
	}
	if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != want.String() {
		return fmt.Errorf("%s is %v, want %s", name, m, want)
	}
	return nil
}
