package resolver

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// unordered is a message as text in which everything that may be in any order is
// sorted: the records of a section, and the values within a record. The case of
// letters is lost.
func unordered(m *dns.Msg) string {
	var text []string
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		var records []string
		for _, rr := range section {
			records = append(records, sortLists(strings.ToLower(rr.String()))) // a compressed SOA owner has the question's case
		}
		slices.Sort(records)
		text = append(text, strings.Join(records, "\n"))
	}
	head := *m
	head.Answer, head.Ns, head.Extra = nil, nil, nil
	return strings.ToLower(head.String()) + strings.Join(text, "\n--\n")
}

// ordered is the answers of a message as they stand there.
func ordered(m *dns.Msg) string { return strings.Join(texts(m.Answer), "\n") }

// orders asks often and returns the different orders of the answers.
func orders(ask func(seed int) *dns.Msg) map[string]bool {
	found := map[string]bool{}
	for seed := range 64 {
		found[ordered(ask(seed))] = true
	}
	return found
}

// R6.3: what the ordinary path answers in many orders, the fast path does not
// freeze in one, and what it answers in one is not packed in several: for every
// name and every type that is served or packed.
func TestFastPathOrders(t *testing.T) {
	s, b := serve(t, standard(t).self, nil)
	types := slices.Clone(packedTypes)
	varied := map[uint16]int{}
	for _, c := range nameCases(t) {
		scope := scopeOf(c.scope)
		if scope.Host {
			continue
		}
		b.SetNetworks(append([]string{}, scope.Networks...))
		f := newFastPath(b)
		for _, qtype := range types {
			m := query(c.name, qtype)
			pkt, _ := m.Pack()
			if len(f.ask(pkt, hostAddr)) == 0 {
				continue
			}
			want := orders(func(seed int) *dns.Msg {
				r := s.zone.answer(zoneQuery{
					Name: c.name, Type: qtype, Scope: scope, Seed: uint64(seed), Limit: udpLimit, Balanced: b.vips,
				})
				return localReply(m, &r)
			})
			got := orders(func(int) *dns.Msg {
				var r dns.Msg
				if err := r.Unpack(f.ask(pkt, hostAddr)); err != nil {
					t.Fatal(err)
				}
				return &r
			})
			if len(got) > 1 != (len(want) > 1) {
				t.Errorf("%s %s in %s: %d orders, the ordinary path has %d", c.name, dns.Type(qtype), scope, len(got), len(want))
			}
			if len(got) > 1 {
				varied[qtype]++
			}
		}
	}
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
		if varied[qtype] == 0 {
			t.Errorf("no answer of type %s comes in several orders", dns.Type(qtype))
		}
	}
}

// An answer that other seeds give in another order is drawn, whatever the seed.
func TestDrawn(t *testing.T) {
	z := standard(t).zone()
	for _, c := range nameCases(t) {
		for _, qtype := range packedTypes {
			drawn := map[bool]int{}
			found := orders(func(seed int) *dns.Msg {
				r := z.answer(zoneQuery{Name: c.name, Type: qtype, Scope: scopeOf(c.scope), Seed: uint64(seed)})
				drawn[r.Drawn]++
				return &dns.Msg{Answer: r.Answer}
			})
			if len(drawn) != 1 || len(found) > 1 && drawn[true] == 0 {
				t.Errorf("%s %s: drawn %v, in %d orders", c.name, dns.Type(qtype), drawn, len(found))
			}
		}
	}
}
