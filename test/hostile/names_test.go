//go:build linux

package hostile

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// nameCases are questions, from a container of host1 and from the other host.
func nameCases() []attack {
	toServer := func(m *mesh, packets ...[]byte) error {
		ctx, cancel := context.WithTimeout(m.ctx, 2*time.Second)
		defer cancel()
		c, err := m.tasks[0].Dial(ctx, "udp", m.nodes[0].DNS.String())
		if err != nil {
			return err
		}
		defer c.Close()
		for i, b := range packets {
			if _, err := c.Write(b); err != nil {
				return err
			}
			if i%64 == 63 {
				m.peer.pause(time.Millisecond)
			}
		}
		return nil
	}
	question := func(name string, qtype uint16) []byte {
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), qtype)
		b, err := q.Pack()
		if err != nil {
			return nil
		}
		return b
	}
	return []attack{
		{name: "questions-of-garbage", do: func(m *mesh) error {
			var all [][]byte
			for i := range 2000 {
				b := make([]byte, i%700)
				_, _ = rand.Read(b)
				all = append(all, b)
			}
			return toServer(m, all...)
		}},
		{name: "questions-in-a-loop", do: func(m *mesh) error {
			head := []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
			var all [][]byte
			for _, name := range [][]byte{
				{0xc0, 12},
				{3, 'w', 'e', 'b', 0xc0, 12},
				{0xc0, 0xff},
				{0x80, 1},
				{63},
				append([]byte{63}, make([]byte, 300)...),
				{0xc0},
			} {
				all = append(all, append(append(append([]byte{}, head...), name...), 0, 1, 0, 1))
			}
			for _, counts := range [][4]uint16{
				{65535, 0, 0, 0},
				{1, 65535, 65535, 65535},
				{0, 0, 0, 0},
				{2, 0, 0, 0},
				{1, 0, 0, 65535},
			} {
				b := append([]byte{}, head[:4]...)
				for _, n := range counts {
					b = binary.BigEndian.AppendUint16(b, n)
				}
				all = append(all, append(b, question("web", dns.TypeA)[12:]...))
			}
			return toServer(m, all...)
		}},
		{name: "questions-for-everything", do: func(m *mesh) error {
			var all [][]byte
			for _, name := range []string{
				"web", "tasks.web", ".", "mesh.internal", strings.Repeat("a.", 120),
				strings.Repeat("x", 63) + ".web", "nearest.web", "*.web", "web.collabnet.mesh.internal", "_http._tcp.web",
				"0.96.10.in-addr.arpa",
			} {
				for _, qtype := range []uint16{
					dns.TypeANY, dns.TypeAXFR, dns.TypeIXFR, dns.TypeNS, dns.TypeSOA, dns.TypeDS,
					dns.TypeTXT, dns.TypePTR, dns.TypeSRV, 0, 65535,
				} {
					if b := question(name, qtype); b != nil {
						all = append(all, b)
					}
				}
			}
			return toServer(m, all...)
		}},
		{name: "questions-without-an-upstream", do: func(m *mesh) error {
			var all [][]byte
			for i := range 6000 {
				all = append(all, question(fmt.Sprintf("x%d.example.org", i), dns.TypeA))
			}
			return toServer(m, all...)
		}},
		{name: "connections-to-the-name-server", do: func(m *mesh) error {
			for range 300 {
				ctx, cancel := context.WithTimeout(m.ctx, 2*time.Second)
				c, err := m.tasks[0].Dial(ctx, "tcp", m.nodes[0].DNS.String())
				cancel()
				if err != nil {
					return err
				}
				m.later(func() { _ = c.Close() })
				_, _ = c.Write([]byte{0xff, 0xff, 1})
			}
			return nil
		}},
		{name: "questions-of-strangers", do: func(m *mesh) error { // routed, so not of a subnet of the host
			var conns []net.Conn
			for range 50 {
				ctx, cancel := context.WithTimeout(m.ctx, time.Second)
				c, err := m.evil.Dial(ctx, "udp", netip.AddrPortFrom(m.nodes[0].Host.Gateway, 53).String())
				cancel()
				if err != nil {
					return err
				}
				conns = append(conns, c)
				_, _ = c.Write(question("web.collabnet", dns.TypeANY))
			}
			for _, c := range conns {
				_ = c.Close()
			}
			return nil
		}},
	}
}
