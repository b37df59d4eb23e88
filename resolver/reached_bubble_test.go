//go:build !race

package resolver

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const sig = "8 2 60 20300101000000 20260101000000 1 example.com. AAAA"

// R7.4: of an upstream's answer a client gets what its question leads to, in any
// order, with the signatures.
func TestUnreachedRecordsAreDropped(t *testing.T) {
	for name, x := range map[string]struct{ answer, want []string }{
		"address":         {[]string{"Example.com. 60 IN A 192.0.2.1"}, nil},
		"another name":    {[]string{"example.com. 60 IN A 192.0.2.1", "bank.test. 60 IN A 192.0.2.66"}, []string{"example.com. 60 IN A 192.0.2.1"}},
		"aliases":         {[]string{"example.com. 60 IN CNAME a.test.", "A.test. 60 IN CNAME b.test.", "b.test. 60 IN A 192.0.2.1"}, nil},
		"aliases, turned": {[]string{"b.test. 60 IN A 192.0.2.1", "a.test. 60 IN CNAME b.test.", "example.com. 60 IN CNAME a.test."}, nil},
		"alias of others": {[]string{"example.com. 60 IN A 192.0.2.1", "x.test. 60 IN CNAME example.com."}, []string{"example.com. 60 IN A 192.0.2.1"}},
		"signed":          {[]string{"example.com. 60 IN A 192.0.2.1", "example.com. 60 IN RRSIG A " + sig}, nil},
		"signature of another": {
			[]string{"example.com. 60 IN A 192.0.2.1", "bank.test. 60 IN RRSIG A " + sig},
			[]string{"example.com. 60 IN A 192.0.2.1"},
		},
		"a whole domain's alias": {
			[]string{
				"com. 60 IN DNAME test.", "com. 60 IN RRSIG DNAME " + sig, "example.com. 60 IN CNAME example.test.",
				"example.test. 60 IN A 192.0.2.1",
			}, nil,
		},
		"a whole domain's alias, alone": {[]string{"com. 60 IN DNAME test.", "example.test. 60 IN A 192.0.2.1"}, nil},
		"what is beside it": {
			[]string{
				"com. 60 IN DNAME test.", "com. 60 IN A 192.0.2.66", "com. 60 IN RRSIG A " + sig, "org. 60 IN DNAME test.",
				"example.test. 60 IN A 192.0.2.1",
			},
			[]string{"com. 60 IN DNAME test.", "example.test. 60 IN A 192.0.2.1"},
		},
		"a loop": {[]string{"example.com. 60 IN CNAME a.test.", "a.test. 60 IN CNAME example.com."}, nil},
	} {
		f := forwarding(t, nil, func(m *dns.Msg, _ bool) (time.Duration, *dns.Msg) {
			r := new(dns.Msg).SetReply(m)
			for _, text := range x.answer {
				r.Answer = append(r.Answer, rr(text))
			}
			return 0, r
		})
		m, _ := f.ask(me, "example.com.")
		want := x.want
		if want == nil {
			want = x.answer
		}
		var got []string
		for _, r := range m.Answer {
			got = append(got, strings.ToLower(r.String()))
		}
		var wanted []string
		for _, text := range want {
			wanted = append(wanted, strings.ToLower(rr(text).String()))
		}
		if !slices.Equal(got, wanted) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(wanted, "\n"))
		}
		if n := f.met.get(countUnreached); int(n) != len(x.answer)-len(want) {
			t.Errorf("%s: %d counted", name, n)
		}
	}
}

// An upstream that answers for another name alone has no answer: the next one is
// asked, and without one the client hears of a failure, not of a name without records.
func TestAnswerOfAnotherName(t *testing.T) {
	other := func(m *dns.Msg, _ bool) (time.Duration, *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		r.Answer = []dns.RR{rr("bank.test. 60 IN A 192.0.2.66")}
		return 0, r
	}
	f := forwarding(t, nil, other, address(0, "192.0.2.1"))
	if m, _ := f.ask(me, "example.com."); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		t.Errorf("with another upstream: %v", m)
	}
	f = forwarding(t, nil, other)
	if m, _ := f.ask(me, "example.com."); m.Rcode != dns.RcodeServerFailure || len(m.Answer) > 0 {
		t.Errorf("alone: %v", m)
	}
}

// However many aliases lead to however many names, what is followed is bounded.
func TestReachedIsBounded(t *testing.T) {
	m := new(dns.Msg)
	deep := strings.Repeat("a.", 60)
	for i := range 60 {
		m.Answer = append(m.Answer, rr(fmt.Sprintf("%stest. 60 IN DNAME b%d.%stest.", deep[2*i:], i, deep[2*i+2:])))
	}
	for i := range 2000 {
		m.Answer = append(m.Answer, rr(fmt.Sprintf("c%d.test. 60 IN CNAME c%d.test.", i+1, i)))
	}
	r := reached{names: map[string]bool{"x." + deep + "test.": true, "c2000.test.": true}, dnames: map[string]bool{}}
	for r.follow(m.Answer) {
	}
	if len(r.names) > maxReached {
		t.Errorf("%d names", len(r.names))
	}
}
