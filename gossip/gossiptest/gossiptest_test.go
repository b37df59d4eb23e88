package gossiptest

import (
	"bytes"
	"math/bits"
	"testing"

	"meshd/state"
)

func TestWrapsBy(t *testing.T) {
	for k := uint64(2); k < 300; k++ {
		for turns := uint64(1); turns < min(k, 5); turns++ {
			n := WrapsBy(k, turns)
			if hi, lo := bits.Mul64(n, k); hi != turns || lo >= k {
				t.Errorf("%d·%d is %d·2^64+%d", n, k, hi, lo)
			}
		}
	}
}

// TestSum: the checksum is the table's own, else no hostile record would get
// past it.
func TestSum(t *testing.T) {
	table := state.NewStore("a", 1, state.DefaultLimits(), new(clock)).Join("net")
	changes := []state.Change{
		{Kind: 200, Key: "k1", Group: "web", Body: "x"},
		{Kind: 201, Key: "", Body: "yy"},
		{Kind: 200, Key: "k1", Body: "z"},
	}
	if _, err := table.Commit(changes); err != nil {
		t.Fatal(err)
	}
	d := table.Delta(state.Want{Owner: "a"}, 1<<20)
	var rs []Record
	for _, r := range d.Records {
		rs = append(rs, Record{
			Kind: byte(r.Kind), Deleted: r.Deleted, Version: r.Version, Key: r.Key, Group: r.Group,
			Body: r.Body,
		})
	}
	if got := Sum(rs); got != d.Sum {
		t.Errorf("sum %x, want %x", got, d.Sum)
	}
}

type clock uint64

func (c *clock) Tick() uint64     { *c++; return uint64(*c) }
func (c *clock) Time() uint64     { return uint64(*c) }
func (c *clock) Witness(t uint64) { *c = max(*c, clock(t)) }

// TestSame: equal seeds and equal choices make equal packets.
func TestSame(t *testing.T) {
	w := World{Self: "a", Peers: []string{"b"}, Networks: []string{"net"}}
	choices := []byte("choices of a fuzzer")
	if a, b := Packet(FromBytes(choices), w), Packet(FromBytes(choices), w); !bytes.Equal(a, b) {
		t.Error("equal choices made different packets")
	}
	var first [][]byte
	for p := range Packets(7, w) {
		if first = append(first, p); len(first) == 50 {
			break
		}
	}
	n := 0
	for p := range Packets(7, w) {
		if !bytes.Equal(p, first[n]) {
			t.Fatalf("packet %d of one seed differs", n)
		}
		if n++; n == len(first) {
			break
		}
	}
}
