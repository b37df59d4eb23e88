package resolver

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// moreProbes are probes of what clients send now and then.
var moreProbes = []struct {
	name, packet string
	rcode        int
}{
	{"HTTPS", "1234 0100 0001 0000 0000 0000 <web.> 0041 0001", dns.RcodeSuccess},
	{"DNSKEY at a zone", "1234 0100 0001 0000 0000 0000 <net1.mesh.internal.> 0030 0001", dns.RcodeSuccess},
	{"DS of a zone", "1234 0100 0001 0000 0000 0000 <net1.mesh.internal.> 002b 0001", dns.RcodeSuccess},
	{"SOA of a zone", "1234 0100 0001 0000 0000 0000 <net1.mesh.internal.> 0006 0001", dns.RcodeSuccess},
	{"empty non-terminal", "1234 0100 0001 0000 0000 0000 <tasks.net1.mesh.internal.> 0001 0001", dns.RcodeSuccess},
	{"below an unknown name", "1234 0100 0001 0000 0000 0000 <a.nope.net1.mesh.internal.> 0001 0001", dns.RcodeNameError},
	{"name of 255 bytes", "1234 0100 0001 0000 0000 0000 " + strings.Repeat("3f"+strings.Repeat("61", 63), 3) + " 3d" + strings.Repeat("61", 61) + " 00 0001 0001", -2},
	{"name of 256 bytes", "1234 0100 0001 0000 0000 0000 " + strings.Repeat("3f"+strings.Repeat("61", 63), 3) + " 3e" + strings.Repeat("61", 62) + " 00 0001 0001", dns.RcodeFormatError},
	{"empty label within", "1234 0100 0001 0000 0000 0000 03 776562 00 03 776562 00 0001 0001", -2},
	{"EDNS with every flag", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 0000ffff 0000", dns.RcodeSuccess},
	{"EDNS with an extended code", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 ff000000 0000", dns.RcodeSuccess},
	{"EDNS size 65535", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 ffff 00000000 0000", dns.RcodeSuccess},
	{"EDNS keepalive and padding", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00000000 000c 000b 0000 000c 0004 00000000", dns.RcodeSuccess},
	{"EDNS version 1 of an unknown name", "1234 0100 0001 0000 0000 0001 <nope.> 0001 0001 00 0029 04d0 00010000 0000", dns.RcodeBadVers},
	{"an A record in the additional section", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 c00c 0001 0001 00000005 0004 01020304", dns.RcodeSuccess},
	{"version.bind in class IN", "1234 0100 0001 0000 0000 0000 <version.bind.> 0010 0001", dns.RcodeServerFailure},
}

// R3: the same for more of them, over both protocols.
func TestMoreProbes(t *testing.T) {
	_, b := serve(t, standard(t).self, []string{"net1"})
	for _, p := range moreProbes {
		t.Run(p.name, func(t *testing.T) {
			pkt := packet(t, p.packet)
			probe(t, b, pkt, p.rcode)
			var r dns.Msg
			if err := r.Unpack(exchangeTCP(t, b, pkt, true)); err != nil {
				t.Fatal(err)
			}
			checkReply(t, pkt, &r, p.rcode)
		})
	}
}

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

// What a parsed message does not show: the question comes back byte
// for byte, in its case, and the records' owner is a pointer to it, on both paths.
func TestReplyBytes(t *testing.T) {
	for _, slow := range []bool{false, true} {
		_, b := serve(t, standard(t).self, []string{"net1"}, func(c *Config) { c.DisableFast = slow })
		for _, name := range []string{
			"wEb.", "TASKS.weB.net1.Mesh.Internal.", "NEAREST.db.", "_HTTP._tcp.Web.",
			"Db1.net1.",
		} {
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
