package resolver

import (
	"testing"

	"github.com/miekg/dns"
)

// FuzzPacket feeds raw packets to everything behind the sockets: what parses
// must get a reply that packs, fits and parses, and answers that question.
func FuzzPacket(f *testing.F) {
	for _, p := range probes {
		f.Add(packet(f, p.packet), false)
	}
	for _, p := range moreProbes {
		f.Add(packet(f, p.packet), true)
	}
	w := standard(f)
	s, b := serve(f, w.self, []string{"net1", "net2"})
	f.Fuzz(func(t *testing.T, pkt []byte, tcp bool) {
		var q dns.Msg
		if q.Unpack(pkt) != nil || q.Response {
			return
		}
		msg, outcome := s.answer(b, question{msg: &q, tcp: tcp})
		if outcome == outcomePanic || msg == nil {
			t.Fatalf("outcome %s for %v", outcome, &q)
		}
		var r dns.Msg
		if err := r.Unpack(msg); err != nil {
			t.Fatalf("reply: %v", err)
		}
		if r.Id != q.Id || !r.Response || r.Opcode != q.Opcode || !tcp && len(msg) > 1232 {
			t.Fatalf("reply %v to %v", &r, &q)
		}
		if r.Rcode == dns.RcodeSuccess && len(q.Question) != 1 {
			t.Fatalf("success for %v", &q)
		}
	})
}
