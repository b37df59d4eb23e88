package gossip

import (
	"encoding/binary"
	"math"
	"math/big"
	"testing"
	"time"

	"meshd/state"
)

// hostileCounts are numbers of items of size bytes whose products wrap around
// 64 bits to something small, and what else is at an edge.
func hostileCounts(size int) []uint64 {
	counts := []uint64{
		1 << 16, 1<<16 + 1, 1<<20 + 1, 1<<31 - 1, 1 << 31, 1 << 32, 1<<63 - 1, 1 << 63, 1<<63 + 1,
		math.MaxUint64 - 1, math.MaxUint64,
	}
	two64 := new(big.Int).Lsh(big.NewInt(1), 64)
	for k := 2; k <= 128; k++ { // the count may be multiplied by the size of what it becomes in memory, too
		d := big.NewInt(int64(k))
		least := new(big.Int).Div(new(big.Int).Add(two64, new(big.Int).Sub(d, big.NewInt(1))), d).Uint64() // ceil(2^64/k)
		counts = append(counts, least-1, least, least+1)
	}
	if size > 1 { // the product wraps around to 10, as one packet needs
		for m := uint64(1); m < uint64(size); m++ {
			n := new(big.Int).Mul(two64, new(big.Int).SetUint64(m))
			counts = append(counts, new(big.Int).Div(n, big.NewInt(int64(size))).Uint64()+1)
		}
	}
	return counts
}

// countedFrames are the payloads of every frame that announces a number of
// items, up to that number.
func countedFrames() map[string]struct {
	typ   byte
	start func(e *encoder)
	size  int
} {
	net := func(e *encoder) { e.str("net") }
	delta := func(e *encoder) {
		e.ref("net")
		e.ref("b")
		e.byte(flagSnapshot)
		e.uint(1)
		e.uint(0)
		e.uint(9)
		e.uint(9)
		e.fixed(1)
	}
	return map[string]struct {
		typ   byte
		start func(e *encoder)
		size  int
	}{
		"hot":           {frameHot, net, leastHead},
		"more":          {frameMore, net, leastHead},
		"heads":         {frameHeads, func(e *encoder) { net(e); e.uint(1); e.byte(0); e.uint(1); e.uint(0) }, leastHead},
		"heads buckets": {frameHeads, func(e *encoder) { net(e); e.uint(256); e.byte(0) }, 1},
		"heads size":    {frameHeads, net, 1},
		"summary":       {frameSummary, net, 8},
		"summary hot":   {frameSummary, func(e *encoder) { net(e); e.uint(1); e.fixed(7) }, leastHead},
		"wants":         {frameWants, net, leastWant},
		"push":          {framePush, func(e *encoder) { e.byte(0); delta(e) }, leastRecord},
		"delta":         {frameDelta, delta, leastRecord},
	}
}

// TestHostileCounts: no number of items makes a node allocate, or end, before
// the items are there (G12).
func TestHostileCounts(t *testing.T) {
	for name, f := range countedFrames() {
		for _, n := range hostileCounts(f.size) {
			for _, tail := range []int{0, 10, 40} {
				c := testCore(t, "a", "b")
				e := newEncoder("b", 2)
				e.open(f.typ)
				f.start(e)
				e.uint(n)
				e.b = append(e.b, make([]byte, tail)...)
				e.close()
				malformed := c.Stats.Malformed
				c.Receive(3*time.Second, e.b)
				if c.Stats.Malformed != malformed+1 {
					t.Errorf("%s: a count of %d before %d bytes was taken", name, n, tail)
				}
			}
		}
	}
}

// TestHostileDistances: numbers that are sent as distances fail their frame
// when they leave 64 bits (G12).
func TestHostileDistances(t *testing.T) {
	const most = math.MaxUint64
	for name, fields := range map[string][]uint64{ // inc, from, to-from, to-floor, after-from, upto-after
		"to":        {1, 2, most, 0, 0, 0},
		"to by one": {1, most, 1, 0, 0, 0},
		"floor":     {1, 0, 5, 6, 0, 0},
		"floor far": {1, 0, 5, most, 0, 0},
		"after":     {1, 3, 5, 0, most - 1, 0},
		"upto":      {1, 3, 5, 0, 1, most - 3},
		"upto over": {1, 3, 5, 0, 1, 5},
	} {
		e := newEncoder("b", 2)
		e.open(frameDelta)
		e.ref("net")
		e.ref("b")
		e.byte(flagChunk)
		for i, v := range fields {
			if i == 4 {
				e.fixed(1)
			}
			e.uint(v)
		}
		e.uint(0)
		d := decoder{b: e.b[e.frame:]}
		if x := d.delta(); d.err == nil {
			t.Errorf("%s: taken as %+v", name, x)
		}
	}
	for name, b := range map[string][]byte{
		"record": binary.AppendUvarint([]byte{1}, most-1),
	} {
		d := decoder{b: append(b, 0)}
		if r := d.record(5); d.err == nil {
			t.Errorf("%s: taken as version %d", name, r.Version)
		}
	}
	e := newEncoder("b", 2)
	e.open(frameWants)
	e.str("net")
	e.uint(1)
	e.ref("b")
	e.byte(0)
	e.uint(1)
	e.uint(7)
	e.uint(most - 3)
	if _, ws, err := decodeWants(e.b[e.frame:]); err == nil {
		t.Errorf("want: taken as %+v", ws)
	}
	e = newEncoder("b", 2)
	e.open(frameHot)
	e.str("net")
	e.uint(1)
	e.ref("b")
	e.byte(0)
	e.uint(1)
	e.uint(3)
	e.uint(4)
	e.fixed(1)
	if f, err := decodeHeads(frameHot, e.b[e.frame:]); err == nil {
		t.Errorf("head: taken as %+v", f.heads)
	}
}

// TestMostRecords: what a Chunk can hold is no more than a delta may hold.
func TestMostRecords(t *testing.T) {
	var cfg CoreConfig
	cfg.setDefaults()
	least := len(state.Record{}.Key) + 1 + 16 // as quotas count it
	if cfg.Chunk/least > maxRecords {
		t.Errorf("a chunk of %d bytes holds %d records", cfg.Chunk, cfg.Chunk/least)
	}
}
