package resolver

// This file owns the memory of packed answers.

import (
	"bytes"
	"unsafe"
)

// packedTable holds packed answers in a layout made for few cache misses: a
// lookup reads one slot and one entry, whose key and answer stand beside each
// other. Nothing in it is a pointer, so that the garbage collector does not
// scan it. It belongs to one goroutine.
type packedTable struct {
	slots []uint64 // open addressing: fingerprint ‖ reference of an entry; 0: free
	used  int
	pages [][]byte
	end   int // of the used part of the last page
}

// An entry's reference is its page and its place there, in units of entryAlign.
const (
	pageSize   = 1 << 18
	firstPage  = 1 << 11 // the first page grows up to pageSize
	firstSlots = 1 << 5
	entryAlign = 8
	refBits    = 40
	refMask    = 1<<refBits - 1
)

// entry is the head of a packed answer. Its key (the lower-case wire name and
// the type), its sections and its weights follow it.
type entry struct {
	// Whether it is true.
	seen   uint64 // the scope's version at which it was last known to be true; 0: invalidated
	counts uint32 // ANCOUNT ‖ NSCOUNT, of the message
	origin uint32 // index of what it was made from, in fastScope.origins

	// Sizes in bytes. Invariant: entryHead + keyLen + variants·bodyLen + weights <= size.
	size    uint32 // of the whole, a multiple of entryAlign
	net     uint16 // whose VIPs it depends on, in fastScope.nets, if flagUsesVIPs
	bodyLen uint16 // of each variant
	keyLen  uint16 // of the key
	rrLen   uint8  // of each answer, if they can be rotated; else 0

	// The message. Invariant: preferred <= ANCOUNT.
	preferred uint8 // how many answers come first
	extra     uint8 // ARCOUNT
	variants  uint8 // how many bodies there are, to choose from
	rcode     uint8 // of the header
	flags     uint8 // see flagTooLarge
}

const entryHead = int(unsafe.Sizeof(entry{}))

// The flags of an entry.
const (
	flagTooLarge = 1 << iota // the ordinary path must answer
	flagUsesVIPs             // it depends on whether VIPs are usable
	flagVIPs                 // and was made when they were
	flagWeighted             // cumulative weights of the answers follow the body
	flagDirect               // its name is a service's own: see target.direct
)

// find returns the reference of the entry with that key, or 0.
func (t *packedTable) find(hash uint64, key []byte) uint64 {
	if t.used == 0 {
		return 0
	}
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s == 0 {
			return 0
		}
		if (s^hash)>>refBits == 0 {
			if e, data := t.at(s & refMask); bytes.Equal(data[:e.keyLen], key) {
				return s & refMask
			}
		}
	}
}

// maybe is find without the comparison of the key: the reference is that of the
// entry, of another one with its fingerprint, or 0.
func (t *packedTable) maybe(hash uint64) uint64 {
	if t.used == 0 {
		return 0
	}
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if s := t.slots[i]; s == 0 || (s^hash)>>refBits == 0 {
			return s & refMask
		}
	}
}

// at returns the entry with a reference, and what follows its head.
func (t *packedTable) at(ref uint64) (*entry, []byte) {
	place := (ref - 1) * entryAlign
	page := t.pages[place/pageSize][place%pageSize:]
	e := (*entry)(unsafe.Pointer(&page[0])) // pages and places are aligned
	return e, page[entryHead:e.size]
}

// put makes room for an entry of n bytes after its head and returns it, zeroed.
// It takes the place of the one with that key, if there is one. The caller
// fills it in, key first, before it uses the table again.
func (t *packedTable) put(hash uint64, key []byte, n int) (*entry, []byte) {
	size := (entryHead + n + entryAlign - 1) &^ (entryAlign - 1)
	ref := t.find(hash, key)
	if ref != 0 {
		if e, data := t.at(ref); int(e.size) >= size {
			size = int(e.size)
			*e = entry{size: uint32(size), keyLen: uint16(len(key))}
			clear(data)
			copy(data, key)
			return e, data
		}
	}
	fresh := t.room(size)
	e, _ := t.init(fresh, size, key)
	if ref != 0 {
		t.replace(hash, ref, fresh)
	} else {
		t.insert(hash&^refMask|fresh, hash)
	}
	_, data := t.at(fresh)
	return e, data
}

func (t *packedTable) init(ref uint64, size int, key []byte) (*entry, []byte) {
	place := (ref - 1) * entryAlign
	page := t.pages[place/pageSize][place%pageSize:]
	e := (*entry)(unsafe.Pointer(&page[0]))
	*e = entry{size: uint32(size), keyLen: uint16(len(key))}
	copy(page[entryHead:size], key)
	return e, page[entryHead:size]
}

// room returns the reference of size unused bytes.
func (t *packedTable) room(size int) uint64 {
	last := len(t.pages) - 1
	switch {
	case last < 0:
		t.pages, last, t.end = append(t.pages, make([]byte, firstPage)), 0, 0
	case t.end+size > pageSize:
		t.pages, last, t.end = append(t.pages, make([]byte, pageSize)), last+1, 0
	}
	for page := t.pages[last]; t.end+size > len(page); page = t.pages[last] {
		t.pages[last] = append(make([]byte, 0, 2*len(page)), page...)[:2*len(page)]
	}
	ref := uint64(last*pageSize+t.end)/entryAlign + 1
	t.end += size
	return ref
}

func (t *packedTable) insert(slot, hash uint64) {
	if 2*(t.used+1) > len(t.slots) {
		t.grow()
	}
	mask := uint64(len(t.slots) - 1)
	i := hash & mask
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = slot
	t.used++
}

func (t *packedTable) replace(hash, old, fresh uint64) {
	mask := uint64(len(t.slots) - 1)
	i := hash & mask
	for t.slots[i]&refMask != old {
		i = (i + 1) & mask
	}
	t.slots[i] = t.slots[i]&^refMask | fresh
}

// grow doubles the slots. A slot has the upper bits of its hash only, so the
// keys are hashed again.
func (t *packedTable) grow() {
	old := t.slots
	t.slots = make([]uint64, max(firstSlots, 2*len(old)))
	t.used = 0
	for _, s := range old {
		if s != 0 {
			e, data := t.at(s & refMask)
			t.insert(s, hashKey(data[:e.keyLen]))
		}
	}
}

// bytes is the memory that the table takes.
func (t *packedTable) bytes() int {
	n := 8 * len(t.slots)
	for _, p := range t.pages {
		n += len(p)
	}
	return n
}
