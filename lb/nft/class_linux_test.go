package nft

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/state"
)

func TestClassNumbers(t *testing.T) {
	seen := map[uint32]class{}
	for _, slots := range []uint32{1, 2, 255, 256, 32749, 1 << 20} {
		for _, shard := range []uint32{0, 1, maxShards - 1} {
			for i := range 4 {
				c := class{family: 1, slots: slots, shard: shard, all: i&1 != 0, hash: i&2 != 0}
				if got, err := classAt(c.number(), 1); err != nil || got != c {
					t.Errorf("class %s comes back as %s, %v", c.name(), got.name(), err)
				}
				if other, ok := seen[c.number()]; ok {
					t.Errorf("classes %s and %s have one number", c.name(), other.name())
				}
				seen[c.number()] = c
			}
		}
	}
	for _, n := range []uint32{0, 7, 1<<8 | maxShards<<2} {
		if c, err := classAt(n, 0); err == nil {
			t.Errorf("number %#x is class %s, want an error", n, c.name())
		}
	}
}

// Rule L8: a service that goes through many sizes does not leave a chain for
// each, and a later process finds no chain that nobody uses.
func TestUnusedClassesGo(t *testing.T) {
	r := newRig(t)
	r.Serve(r.Peer, "10.1.0.2:80")
	d := r.driver()
	s := service(vip4, 80, state.TCP, "10.1.0.2:80")
	r.program(d, table(s))
	const sizes = 2 * maxUnused
	for i := range sizes {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}), 80)
		ops := []lb.Op{{Kind: lb.SetBackend, Key: s.Key, Backend: lb.Backend{Addr: a, Weight: 1}}}
		if errs := d.Apply(t.Context(), ops); errs != nil {
			t.Fatal(errs)
		}
		if found, err := d.Check(t.Context()); err != nil || len(found) > 0 {
			t.Fatalf("size %d: %v, %v", i, found, err)
		}
	}
	if n := r.classChains(d); n > maxUnused+1 {
		t.Errorf("%d class chains after %d sizes, want at most %d", n, sizes, maxUnused+1)
	}
	again := r.driver()
	if _, err := again.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := r.classChains(again); n != 1 {
		t.Errorf("%d class chains in a later process, want the one in use", n)
	}
	r.program(again, table(s))
	equalCounts(t, "one backend again", r.Spread(r.Node, "tcp", "10.96.3.7:80", 2), map[string]int{"10.1.0.2:80": 2})
}

// classChains counts the class chains in the kernel.
func (r *rig) classChains(d *Driver) (n int) {
	r.T.Helper()
	chains, err := d.conn.Nftables.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		r.T.Fatal(err)
	}
	for _, c := range chains {
		var slots, shard int
		if _, err := fmt.Sscanf(c.Name, "rr4_%d_%d", &slots, &shard); err == nil {
			n++
		}
	}
	return n
}

// A class chain, or the way to it, that somebody removed comes back with the
// next audit.
func TestClassComesBack(t *testing.T) {
	r := newRig(t)
	r.Serve(r.Peer, "10.1.0.2:80")
	d := r.driver()
	s := service(vip4, 80, state.TCP, "10.1.0.2:80")
	r.program(d, table(s))
	other := r.driver() // of a process that knows no better
	if err := other.layout.delClass(other.conn.Nftables, d.entries[s.Key].class); err != nil {
		t.Fatal(err)
	}
	if err := other.conn.Nftables.Flush(); err != nil {
		t.Fatal(err)
	}
	r.refused("tcp", "10.96.3.7:80")
	if _, err := d.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	equalCounts(t, "after the audit", r.Spread(r.Node, "tcp", "10.96.3.7:80", 2), map[string]int{"10.1.0.2:80": 2})
}
