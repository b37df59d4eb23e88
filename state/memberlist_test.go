package state

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// membersOf returns a list of n members, and the same as a slice.
func membersOf(n int) (Members, []*Entry) {
	es := make([]*Entry, n)
	for i := range es {
		es[i] = &Entry{version: uint64(i)}
	}
	w := newMemberWriter(Members{}, n)
	w.append(es...)
	return w.list, es
}

// TestMembersAreLikeASlice: a list, and each part of a part of it, is read like a slice.
func TestMembersAreLikeASlice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m, es := membersOf(rapid.IntRange(0, 2*fewMembers).Draw(rt, "members"))
		for range 3 {
			got := m.AppendTo([]*Entry{nil})
			if m.Len() != len(es) || !slices.Equal(got[1:], es) {
				rt.Fatalf("%d members, not those %d", m.Len(), len(es))
			}
			stop := rapid.IntRange(0, len(es)).Draw(rt, "stop")
			next := 0
			for i, e := range m.All() {
				if i != next || e != es[i] || m.At(i) != e {
					rt.Fatalf("%p at %d, not %p", e, i, es[next])
				}
				if next++; i == stop {
					break
				}
			}
			if next != min(stop+1, len(es)) {
				rt.Fatalf("%d members seen up to %d of %d", next, stop, len(es))
			}
			last := func(e *Entry) bool { return e == es[len(es)-1] }
			if m.Contain(last) != (len(es) > 0) || m.Contain(func(*Entry) bool { return false }) {
				rt.Fatal("it does not contain what it contains")
			}
			from := rapid.IntRange(0, len(es)).Draw(rt, "from")
			to := rapid.IntRange(from, len(es)).Draw(rt, "to")
			m, es = m.Part(from, to), es[from:to]
		}
	})
}

// A place outside a list, or outside a part of a longer one, is a mistake of the caller's.
func TestMembersOutOfRange(t *testing.T) {
	for _, n := range []int{3, 2 * fewMembers} {
		all, _ := membersOf(n)
		for name, f := range map[string]func(Members){
			"before":     func(m Members) { m.At(-1) },
			"after":      func(m Members) { m.At(m.Len()) },
			"part":       func(m Members) { m.Part(0, m.Len()+1) },
			"turned":     func(m Members) { m.Part(1, 0) },
			"part after": func(m Members) { m.Part(m.Len()+1, m.Len()+1) },
		} {
			t.Run(name, func(t *testing.T) {
				defer func() {
					if recover() == nil {
						t.Errorf("%d members: no panic", n)
					}
				}()
				f(all.Part(1, n-1))
			})
		}
	}
}

// A publication that changes few of many members shares the rest with the one before.
func TestMembersAreShared(t *testing.T) {
	m, _ := membersOf(10_000)
	shared := func(n Members) (k int) {
		for i, c := range n.long.chunks {
			if i < len(m.long.chunks) && c == m.long.chunks[i] {
				k++
			}
		}
		return k
	}
	all := len(m.long.chunks)
	w := newMemberWriter(m, m.Len())
	w.copy(0, m.Len())
	if n := shared(w.list); n != all {
		t.Errorf("%d of %d chunks shared without a change", n, all)
	}
	w.set(100, &Entry{})
	w.set(101, &Entry{})
	w.set(m.Len()-1, &Entry{})
	if n := shared(w.list); n != all-2 {
		t.Errorf("%d of %d chunks shared after changes in two", n, all)
	}
	w = newMemberWriter(m, m.Len()+1)
	w.copy(0, 5000)
	w.append(&Entry{})
	w.copy(5000, m.Len())
	if n := shared(w.list); n != 5000>>chunkBits {
		t.Errorf("%d of %d chunks shared after one more in the middle", n, all)
	}
}

// Reading costs no memory: lookups and plans do it all the time.
func TestMembersReadWithoutAllocation(t *testing.T) {
	for _, n := range []int{10, 2 * fewMembers} {
		m, _ := membersOf(n)
		s := &Service{Members: m, Count: [Hidden]int32{Serving: int32(n) - 1, Suspect: 1}}
		var sum uint64
		if allocs := testing.AllocsPerRun(100, func() {
			members, _ := s.Serving()
			for _, e := range members.All() {
				sum += e.version
			}
			sum += s.Balanced().At(0).version
		}); allocs > 0 {
			t.Errorf("%d members: %v allocations", n, allocs)
		}
	}
}

// TestDeclaresAs: what an endpoint declares is counted again exactly if it differs.
func TestDeclaresAs(t *testing.T) {
	stream := newStream("a")
	entry := func(e Endpoint) *Entry {
		x, err := newEntry(stream, Record{Kind: KindEndpoint, Key: "t", Group: "web", Body: string(AppendEndpoint(nil, &e))})
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	port := func(n uint16, name string) Port { return Port{Name: name, Number: n, Proto: TCP} }
	rapid.Check(t, func(rt *rapid.T) {
		draw := func() (e Endpoint) {
			e.IP4 = netip.AddrFrom4([4]byte{10, 0, 0, 1})
			e.Weight, e.Slot = rapid.Uint16().Draw(rt, "weight"), rapid.Uint32Range(0, 300).Draw(rt, "slot")
			for _, n := range rapid.SliceOfNDistinct(rapid.Uint16Range(1, 3), 0, 2, rapid.ID).Draw(rt, "ports") {
				e.Ports = append(e.Ports, port(n, rapid.SampledFrom([]string{"", "http"}).Draw(rt, "name")))
			}
			e.Aliases = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"www", "api"}), 0, 2, rapid.ID).Draw(rt, "aliases")
			e.Hostname = rapid.SampledFrom([]string{"", "h"}).Draw(rt, "hostname")
			return e
		}
		a, b := draw(), draw()
		want := slices.Equal(a.Ports, b.Ports) && slices.Equal(a.Aliases, b.Aliases)
		if got := entry(a).declaresAs(entry(b)); got != want {
			rt.Fatalf("%+v declares as %+v: %v", a, b, got)
		}
	})
}

// TestLongListsAreReadWhileTheyChange: a reader sees one publication, of whose many
// members most are shared with the next.
func TestLongListsAreReadWhileTheyChange(t *testing.T) {
	a, _ := pair(DefaultLimits())
	const members = 2*fewMembers + 5
	tell := func(round int, is ...int) {
		var cs []Change
		for _, i := range is {
			e := Endpoint{IP4: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Weight: uint16(round + 1)}
			cs = append(cs, Change{
				Kind: KindEndpoint, Key: fmt.Sprintf("t%04d", i), Group: "web", Body: string(AppendEndpoint(nil, &e)),
			})
		}
		commit(t, a, cs...)
		a.Publish(time.Duration(round) * time.Second)
	}
	all := make([]int, members)
	for i := range all {
		all[i] = i
	}
	tell(0, all...)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for last := uint16(0); ; {
				s := a.View().Service("web")
				first := s.Members.At(0).Weight()
				if n := len(s.Members.AppendTo(nil)); n != members || s.Members.At(members-1).Weight() != first || first < last {
					t.Errorf("S4: %d members, weights %d and %d after %d", n, first, s.Members.At(members-1).Weight(), last)
					return
				}
				last = first
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for round := 1; round < 200; round++ {
		tell(round, 0, round, members-1)
	}
	close(done)
	wg.Wait()
}
