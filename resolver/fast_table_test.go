package resolver

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// The table is a map: random puts of entries of random sizes, over and over.
func TestPackedTableIsAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var table packedTable
	want := map[string][]byte{}
	for range 60_000 {
		key := fmt.Appendf(nil, "name%d", rng.IntN(8000))
		body := bytes.Repeat([]byte{byte(rng.Uint32())}, 1+rng.IntN(60))
		if rng.IntN(500) == 0 {
			body = bytes.Repeat(body, 80)
		}
		e, data := table.put(hashKey(key), key, len(key)+len(body))
		e.bodyLen = uint16(len(body))
		copy(data[len(key):], body)
		want[string(key)] = body
	}
	for k, body := range want {
		ref := table.find(hashKey([]byte(k)), []byte(k))
		if ref == 0 {
			t.Fatalf("%s is missing", k)
		}
		e, data := table.at(ref)
		if got := data[e.keyLen:][:e.bodyLen]; !bytes.Equal(got, body) || string(data[:e.keyLen]) != k {
			t.Fatalf("%s: % x, want % x", k, got, body)
		}
		if maybe := table.maybe(hashKey([]byte(k))); maybe == 0 {
			t.Errorf("%s: nothing to prefetch", k)
		}
	}
	if table.used != len(want) || table.find(hashKey([]byte("other")), []byte("other")) != 0 {
		t.Errorf("%d entries, want %d", table.used, len(want))
	}
	if len(table.pages) < 2 || 2*table.used > len(table.slots) {
		t.Errorf("%d pages, %d of %d slots", len(table.pages), table.used, len(table.slots))
	}
}

// An entry that fits takes the place of the one before it.
func TestPackedTableReusesRoom(t *testing.T) {
	var table packedTable
	key := []byte("name")
	for i := range 1000 {
		table.put(hashKey(key), key, len(key)+100-i%50)
	}
	if table.end != entryHead+104 || table.used != 1 {
		t.Errorf("%d bytes for %d entries", table.end, table.used)
	}
}

// FuzzFoldWord: what is folded word by word is what is folded byte by byte.
func FuzzFoldWord(f *testing.F) {
	f.Add([]byte("@AZ[`az{"))
	f.Add([]byte("\x00\x3f\x7f\x80\xc1\xda\xdb\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != 8 {
			return
		}
		w := uint64(0)
		for i, c := range b {
			w |= uint64(c) << (8 * i)
		}
		folded := foldWord(w)
		for i, c := range b {
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			if got := byte(folded >> (8 * i)); got != c {
				t.Errorf("%q: byte %d is %#x, want %#x", b, i, got, c)
			}
		}
	})
}
