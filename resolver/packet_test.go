package resolver

import (
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func quiet(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// packet reads hex with "name." in angle brackets: <web.> is its wire form.
func packet(tb testing.TB, text string) []byte {
	tb.Helper()
	var b []byte
	for f := range strings.FieldsSeq(text) {
		if name, ok := strings.CutPrefix(f, "<"); ok {
			wire := make([]byte, 256)
			n, err := dns.PackDomainName(strings.TrimSuffix(name, ">"), wire, 0, nil, false)
			if err != nil {
				tb.Fatal(err)
			}
			b = append(b, wire[:n]...)
			continue
		}
		p, err := hex.DecodeString(f)
		if err != nil {
			tb.Fatal(err)
		}
		b = append(b, p...)
	}
	return b
}

// probes are packets that name servers are known to get wrong, and the rcode that
// is right: -1 is silence. "A" below is <web.> type A class IN.
var probes = []struct {
	name, packet string
	rcode        int
}{
	{"plain", "1234 0100 0001 0000 0000 0000 <web.> 0001 0001", dns.RcodeSuccess},
	{"upper case", "1234 0100 0001 0000 0000 0000 <wEB.> 0001 0001", dns.RcodeSuccess},
	{"no RD", "1234 0000 0001 0000 0000 0000 <web.> 0001 0001", dns.RcodeSuccess},
	{"all flags", "1234 07ff 0001 0000 0000 0000 <web.> 0001 0001", dns.RcodeSuccess},
	{"unknown name", "1234 0100 0001 0000 0000 0000 <nope.> 0001 0001", dns.RcodeNameError},
	{"nodata", "1234 0100 0001 0000 0000 0000 <four.> 001c 0001", dns.RcodeSuccess},
	{"unknown type", "1234 0100 0001 0000 0000 0000 <web.> fff0 0001", dns.RcodeSuccess},
	{"type 0", "1234 0100 0001 0000 0000 0000 <web.> 0000 0001", dns.RcodeFormatError},
	{"type OPT", "1234 0100 0001 0000 0000 0000 <web.> 0029 0001", dns.RcodeFormatError},
	{"ANY", "1234 0100 0001 0000 0000 0000 <web.> 00ff 0001", dns.RcodeSuccess},
	{"AXFR", "1234 0100 0001 0000 0000 0000 <net1.> 00fc 0001", dns.RcodeRefused},
	{"IXFR with SOA", "1234 0100 0001 0000 0001 0000 <net1.> 00fb 0001 c00c 0006 0001 00000000 0016 00 00 00000001 00000001 00000001 00000001 00000001", dns.RcodeRefused},
	{"TKEY", "1234 0100 0001 0000 0000 0000 <web.> 00f9 0001", dns.RcodeRefused},
	{"class CH", "1234 0100 0001 0000 0000 0000 <version.bind.> 0010 0003", dns.RcodeRefused},
	{"class ANY", "1234 0100 0001 0000 0000 0000 <web.> 0001 00ff", dns.RcodeRefused},
	{"class 0", "1234 0100 0001 0000 0000 0000 <web.> 0001 0000", dns.RcodeRefused},
	{"response", "1234 8100 0001 0000 0000 0000 <web.> 0001 0001", -1},
	{"empty", "", -1},
	{"one byte", "12", -1},
	{"eleven bytes", "1234 0100 0001 0000 0000 00", -1},
	{"header only", "1234 0100 0000 0000 0000 0000", dns.RcodeFormatError},
	{"header only, QDCOUNT 1", "1234 0100 0001 0000 0000 0000", dns.RcodeFormatError},
	{"QDCOUNT 0 with question", "1234 0100 0000 0000 0000 0000 <web.> 0001 0001", dns.RcodeFormatError},
	{"QDCOUNT 2", "1234 0100 0002 0000 0000 0000 <web.> 0001 0001 <db.> 0001 0001", dns.RcodeFormatError},
	{"QDCOUNT 65535", "1234 0100 ffff 0000 0000 0000 <web.> 0001 0001", dns.RcodeFormatError},
	{"question cut in name", "1234 0100 0001 0000 0000 0000 03 7765", dns.RcodeFormatError},
	{"name only", "1234 0100 0001 0000 0000 0000 <web.>", -2},
	{"question cut in type", "1234 0100 0001 0000 0000 0000 <web.> 00", dns.RcodeFormatError},
	{"no class", "1234 0100 0001 0000 0000 0000 <web.> 0001", -2},
	{"pointer to itself", "1234 0100 0001 0000 0000 0000 c00c 0001 0001", dns.RcodeFormatError},
	{"pointer ahead", "1234 0100 0001 0000 0000 0000 c0ff 0001 0001", dns.RcodeFormatError},
	{"pointer into the header", "1234 0100 0001 0000 0000 0000 c004 0001 0001", -2},
	{"label type 0x40", "1234 0100 0001 0000 0000 0000 4161 00 0001 0001", dns.RcodeFormatError},
	{"label type 0x80", "1234 0100 0001 0000 0000 0000 8161 00 0001 0001", dns.RcodeFormatError},
	{"label beyond the end", "1234 0100 0001 0000 0000 0000 3f61 6161", dns.RcodeFormatError},
	{"root", "1234 0100 0001 0000 0000 0000 00 0001 0001", dns.RcodeServerFailure},
	{"dot in label", "1234 0100 0001 0000 0000 0000 03 612e62 00 0001 0001", dns.RcodeNameError},
	{"zero byte in label", "1234 0100 0001 0000 0000 0000 03 610062 00 0001 0001", dns.RcodeNameError},
	{"trailing garbage", "1234 0100 0001 0000 0000 0000 <web.> 0001 0001 deadbeef", dns.RcodeSuccess},
	{"opcode STATUS", "1234 1100 0001 0000 0000 0000 <web.> 0001 0001", dns.RcodeNotImplemented},
	{"opcode NOTIFY", "1234 2100 0001 0000 0000 0000 <web.> 0006 0001", dns.RcodeNotImplemented},
	{"opcode UPDATE", "1234 2900 0001 0000 0000 0000 <web.> 0006 0001", dns.RcodeNotImplemented},
	{"opcode 15", "1234 7900 0001 0000 0000 0000 <web.> 0001 0001", dns.RcodeNotImplemented},
	{"ANCOUNT 1 without answer", "1234 0100 0001 0001 0000 0000 <web.> 0001 0001", dns.RcodeSuccess},
	{"an answer in the query", "1234 0100 0001 0001 0000 0000 <web.> 0001 0001 c00c 0001 0001 00000005 0004 01020304", dns.RcodeFormatError},
	{"EDNS", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00000000 0000", dns.RcodeSuccess},
	{"EDNS with DO", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00008000 0000", dns.RcodeSuccess},
	{"EDNS size 0", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 0000 00000000 0000", dns.RcodeSuccess},
	{"EDNS version 1", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00010000 0000", dns.RcodeBadVers},
	{"EDNS version 255", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00ff0000 0000", dns.RcodeBadVers},
	{"EDNS cookie", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00000000 000c 000a 0008 0102030405060708", dns.RcodeSuccess},
	{"EDNS cookie of 3 bytes", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00000000 0007 000a 0003 010203", dns.RcodeSuccess},
	{"EDNS unknown option", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00000000 0006 fffe 0002 0102", dns.RcodeSuccess},
	{"EDNS client subnet", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00000000 000b 0008 0007 0001 18 00 c00002", dns.RcodeSuccess},
	{"EDNS option too long", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00000000 0006 000a 00ff 0102", dns.RcodeFormatError},
	{"EDNS data beyond the end", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00000000 00ff 000a", dns.RcodeFormatError},
	{"EDNS owner not the root", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 <a.> 0029 04d0 00000000 0000", dns.RcodeFormatError},
	{"two OPTs", "1234 0100 0001 0000 0000 0002 <web.> 0001 0001 00 0029 04d0 00000000 0000 00 0029 04d0 00000000 0000", dns.RcodeFormatError},
	{"600 bytes of padding", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001 00 0029 04d0 00000000 025c 000c 0258 " + strings.Repeat("00", 600), dns.RcodeSuccess},
	{"ARCOUNT 1 without record", "1234 0100 0001 0000 0000 0001 <web.> 0001 0001", dns.RcodeSuccess},
}

// R3: every probe gets what it deserves over UDP, and the server lives on.
func TestProbes(t *testing.T) {
	_, b := serve(t, standard(t).self, []string{"net1"})
	for _, p := range probes {
		t.Run(p.name, func(t *testing.T) { probe(t, b, packet(t, p.packet), p.rcode) })
	}
}

// probe sends a packet, then a plain query: a reply to the latter first means silence.
func probe(t *testing.T, b *Bound, pkt []byte, want int) {
	c, err := net.Dial("udp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(pkt); err != nil {
		t.Fatal(err)
	}
	if want == -1 { // the sentinel distinguishes silence from slowness
		sentinel, _ := query("web.", dns.TypeA).Pack()
		sentinel[0], sentinel[1] = 0xff, 0xff
		c.Write(sentinel)
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var r dns.Msg
	if err := r.Unpack(buf[:n]); err != nil {
		t.Fatalf("reply % x: %v", buf[:n], err)
	}
	if want == -1 {
		if r.Id != 0xffff {
			t.Errorf("answered: %v", &r)
		}
		return
	}
	checkReply(t, pkt, &r, want)
}

// checkReply holds a reply against its query. The code -2 is any.
func checkReply(t *testing.T, pkt []byte, r *dns.Msg, want int) {
	if r.Rcode != want && want != -2 {
		t.Errorf("rcode %s, want %s", dns.RcodeToString[r.Rcode], dns.RcodeToString[want])
	}
	if r.Id != 0x1234 || !r.Response {
		t.Errorf("header %v", r.MsgHdr)
	}
	var q dns.Msg
	if q.Unpack(pkt) != nil || r.Rcode == dns.RcodeFormatError {
		return
	}
	if len(r.Question) > 0 && len(q.Question) > 0 && r.Question[0] != q.Question[0] {
		t.Errorf("question %v, want %v", r.Question, q.Question)
	}
	if o := r.IsEdns0(); (o != nil) != (q.IsEdns0() != nil) {
		t.Errorf("OPT %v", o)
	} else if o != nil && (o.UDPSize() != 1232 || len(o.Option) > 0 || o.Version() != 0 || o.Do() != q.IsEdns0().Do()) {
		t.Errorf("OPT %v", o)
	}
}
