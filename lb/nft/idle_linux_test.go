package nft

import (
	"testing"

	"meshd/lb"
	"meshd/state"
)

// Conntrack is not searched for connections of a backend that had none left
// when they were counted last, unless it could have got some since.
func TestRemovalOfIdleBackend(t *testing.T) {
	for _, test := range []struct {
		name   string
		open   bool // a connection stays open
		back   bool // the backend is wanted for a moment after the count
		search bool
	}{
		{name: "idle"},
		{name: "in use", open: true, search: true},
		{name: "wanted again meanwhile", back: true, search: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.four()
			d := r.driver()
			s := service(vip4, 80, state.TCP, "10.1.0.2:80")
			apply := func(weights ...uint32) {
				t.Helper()
				for _, w := range weights {
					op := lb.Op{Kind: lb.SetBackend, Key: s.Key, Backend: lb.Backend{Addr: s.Backends[0].Addr, Weight: w}}
					if errs := d.Apply(t.Context(), []lb.Op{op}); errs != nil {
						t.Fatal(errs)
					}
				}
			}
			r.program(d, table(s))
			if test.open {
				c, err := r.Dial(r.Peer, "tcp", "10.96.3.7:80", "")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			apply(0)
			if _, err := d.Usage(t.Context(), []lb.Key{s.Key}); err != nil {
				t.Fatal(err)
			}
			if test.back {
				apply(1, 0)
			}
			if errs := d.Apply(t.Context(), []lb.Op{{Kind: lb.DelBackend, Key: s.Key, Backend: s.Backends[0]}}); errs != nil {
				t.Fatal(errs)
			}
			if search := d.cut.Len() > 0; search != test.search {
				t.Errorf("searched conntrack: %v, want %v", search, test.search)
			}
		})
	}
}
