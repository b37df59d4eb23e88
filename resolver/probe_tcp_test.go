package resolver

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// R3: every probe gets over TCP what it deserves, and the connection lives on.
func TestProbesOverTCP(t *testing.T) {
	_, b := serve(t, standard(t).self, []string{"net1"})
	for _, p := range probes {
		t.Run(p.name, func(t *testing.T) {
			pkt := packet(t, p.packet)
			replies := exchangeTCP(t, b, pkt, p.rcode != -1)
			if p.rcode == -1 {
				return // only the sentinel was answered
			}
			var r dns.Msg
			if err := r.Unpack(replies); err != nil {
				t.Fatalf("reply % x: %v", replies, err)
			}
			checkReply(t, pkt, &r, p.rcode)
		})
	}
}

// sentinel is the id of a query that follows a probe.
const sentinel = 0xffff

// exchangeTCP sends a packet and a plain query over one connection and returns
// the reply to the packet, if one is due. There must be no other.
func exchangeTCP(t *testing.T, b *Bound, pkt []byte, due bool) (reply []byte) {
	t.Helper()
	c, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	plain := query("web.", dns.TypeA)
	plain.Id = sentinel
	last, _ := plain.Pack()
	if _, err := c.Write(append(framed(pkt), framed(last)...)); err != nil {
		t.Fatal(err)
	}
	for answered := false; !answered || due && reply == nil; {
		var n uint16
		if err := binary.Read(c, binary.BigEndian, &n); err != nil {
			t.Fatal(err)
		}
		m := make([]byte, n)
		if _, err := io.ReadFull(c, m); err != nil {
			t.Fatal(err)
		}
		switch id := binary.BigEndian.Uint16(m); {
		case id == sentinel && !answered:
			answered = true
		case due && reply == nil:
			reply = m
		default:
			t.Fatalf("a reply to nothing: % x", m)
		}
	}
	return reply
}

func framed(m []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)
}

// dns.md B.2, what a parsed message does not show: the question comes back byte
// for byte, in its case, and the records' owner is a pointer to it, on both paths.
func TestReplyBytes(t *testing.T) {
	for _, slow := range []bool{false, true} {
		_, b := serve(t, standard(t).self, []string{"net1"}, func(c *Config) { c.DisableFast = slow })
		for _, name := range []string{"wEb.", "TASKS.weB.net1.Mesh.Internal.", "NEAREST.db.", "_HTTP._tcp.Web.", "Db1.net1."} {
			qtype := dns.TypeA
			if name[0] == '_' {
				qtype = dns.TypeSRV
			}
			pkt, _ := query(name, qtype).Pack()
			reply := exchangeUDP(t, b, pkt)
			if !bytes.Equal(reply[:2], pkt[:2]) || !bytes.Equal(reply[12:len(pkt)], pkt[12:]) {
				t.Errorf("%s: the question came back as % x", name, reply[:min(len(reply), len(pkt))])
			}
			if len(reply) < len(pkt)+2 || reply[len(pkt)] != 0xc0 || reply[len(pkt)+1] != 12 {
				t.Errorf("%s: the owner of the first record is no pointer to the question: % x", name, reply[len(pkt):])
			}
		}
		pkt, _ := query("web.", dns.TypeA).Pack()
		if reply := exchangeUDP(t, b, pkt); len(reply) != len(pkt)+16 {
			t.Errorf("one address takes %d bytes after the question, want 16", len(reply)-len(pkt))
		}
	}
}

func exchangeUDP(t *testing.T, b *Bound, pkt []byte) []byte {
	t.Helper()
	c, err := net.Dial("udp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(pkt); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}
