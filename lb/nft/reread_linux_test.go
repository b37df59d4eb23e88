package nft

import (
	"errors"
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/state"
)

// Rule L1: what a pass over a map leaves out, as the kernel does while the map
// is being spread over a larger table, is not taken for gone.
func TestPasses(t *testing.T) {
	b := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")}
	k, c := lb.Key{VIP: vip4, Port: 80, Proto: state.TCP}, class{slots: 2}
	tell := func(r *reader, slots ...int) {
		e := r.entry(k)
		e.there, e.class = true, c
		for len(e.slots) < 2 {
			e.slots = append(e.slots, netip.AddrPort{})
		}
		for _, i := range slots {
			e.slots[i] = b[i]
		}
		r.classes[c] = true
	}
	nothing := func(*reader) {}
	for _, test := range []struct {
		name   string
		known  bool
		passes []func(*reader)
		want   int // slots in the end
		taken  int
	}{
		{"whole at once", true, []func(*reader){func(r *reader) { tell(r, 0, 1) }, nil}, 2, 1},
		{"a slot later", false, []func(*reader){func(r *reader) { tell(r, 0) }, func(r *reader) { tell(r, 1) }, nil}, 2, 2},
		{"first nothing of what is known", true, []func(*reader){func(r *reader) { r.classes[c] = true }, func(r *reader) { tell(r, 0, 1) }, nil}, 2, 2},
		{"gone", true, []func(*reader){nothing, nil}, 0, 1},
		{"a slot is gone", true, []func(*reader){func(r *reader) { tell(r, 1) }, nothing, nil}, 1, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &reader{d: &Driver{entries: map[lb.Key]*entry{}}, entries: map[lb.Key]*entry{}, classes: map[class]bool{}}
			if test.known {
				r.d.entries[k] = &entry{there: true, class: c, slots: b}
			}
			n := 0
			err := r.passes(func() error {
				if n++; test.passes[n-1] == nil {
					return errors.New("read once more than needed")
				}
				test.passes[n-1](r)
				return nil
			})
			got := 0
			if e := r.entries[k]; e != nil {
				got = filled(e.slots)
			}
			if err != nil || got != test.want || n != test.taken {
				t.Errorf("%d slots after %d passes, want %d after %d: %v", got, n, test.want, test.taken, err)
			}
		})
	}
}
