package state

import "iter"

// This file owns lists of members: immutable, and cheap to make anew with a few of them
// changed.

// Members is an immutable list of endpoints: the members of a service, or some of them
// that follow each other. The zero value has none. Safe for concurrent use.
type Members struct {
	few      []*Entry        // a short list
	long     *chunkedMembers // what a long one is a part of; nil: few has all
	from, to uint32          // the part of long: the first of it, and the first after it
}

// chunkedMembers is a list in chunks, all but the last of them full. Lists that differ in
// few places share most of their chunks.
type chunkedMembers struct{ chunks []*chunk }

// chunk is as many endpoints as a list shares or copies at a time. With 10,000 members
// and 80 changes to them, a publication copies a fourth of what the whole list is.
type chunk [1 << chunkBits]*Entry

const (
	chunkBits = 5
	chunkMask = 1<<chunkBits - 1

	fewMembers = 256 // up to how many members a list is one piece
)

// Len returns how many endpoints there are.
func (m Members) Len() int {
	if m.long == nil {
		return len(m.few)
	}
	return int(m.to - m.from)
}

// At returns the i-th endpoint. It panics where there is none, as a slice does.
func (m Members) At(i int) *Entry {
	if m.long == nil {
		return m.few[i]
	}
	return m.long.at(m.index(i))
}

// index returns where in long the i-th endpoint is.
func (m Members) index(i int) int {
	if i < 0 || i >= int(m.to-m.from) {
		panic("state: no such member")
	}
	return int(m.from) + i
}

func (l *chunkedMembers) at(i int) *Entry { return l.chunks[i>>chunkBits][i&chunkMask] }

// Part returns those from the i-th on and before the j-th, as a slice's s[i:j].
func (m Members) Part(i, j int) Members {
	if m.long == nil {
		return Members{few: m.few[i:j:j]}
	}
	if i < 0 || j < i || j > m.Len() {
		panic("state: no such members")
	}
	return Members{long: m.long, from: m.from + uint32(i), to: m.from + uint32(j)}
}

// All gives the endpoints with their places, in order. It does not allocate.
func (m Members) All() iter.Seq2[int, *Entry] {
	return func(yield func(int, *Entry) bool) { m.each(yield) }
}

func (m Members) each(yield func(int, *Entry) bool) {
	for i := 0; i < m.Len(); {
		piece := m.piece(i)
		for _, e := range piece {
			if !yield(i, e) {
				return
			}
			i++
		}
	}
}

// piece returns the endpoints from the i-th on that are in one piece of memory.
func (m Members) piece(i int) []*Entry {
	if m.long == nil {
		return m.few[i:]
	}
	at := m.index(i)
	end := min(int(m.to), (at|chunkMask)+1)
	return m.long.chunks[at>>chunkBits][at&chunkMask : (end-1)&chunkMask+1]
}

// Contain reports whether f is true of one of the endpoints.
func (m Members) Contain(f func(*Entry) bool) bool {
	for _, e := range m.All() {
		if f(e) {
			return true
		}
	}
	return false
}

// AppendTo appends the endpoints to a slice and returns it.
func (m Members) AppendTo(es []*Entry) []*Entry {
	for i := 0; i < m.Len(); {
		piece := m.piece(i)
		es = append(es, piece...)
		i += len(piece)
	}
	return es
}

// memberWriter makes a list from one before it: of the members that it copies, those
// that stay in their place are shared by the chunk.
type memberWriter struct {
	old  Members
	list Members // the new one
	n    int     // how many it has so far
}

// newMemberWriter returns a writer of a list of that size.
func newMemberWriter(old Members, size int) memberWriter {
	w := memberWriter{old: old}
	if size <= fewMembers {
		w.list.few = make([]*Entry, 0, size)
		return w
	}
	w.list.long = &chunkedMembers{make([]*chunk, (size+chunkMask)>>chunkBits)}
	w.list.to = uint32(size)
	return w
}

// copy appends the members of the old list from the i-th on, up to the j-th.
func (w *memberWriter) copy(i, j int) {
	for i < j {
		if k := w.shareable(i, j); k > 0 {
			at, next := i>>chunkBits, min(i+k<<chunkBits, j)
			copy(w.list.long.chunks[at:], w.old.long.chunks[at:at+k])
			w.n, i = next, next
			continue
		}
		piece := w.old.piece(i)
		piece = piece[:min(len(piece), j-i)]
		w.append(piece...)
		i += len(piece)
	}
}

// shareable returns how many chunks of the old list, whose i-th to j-th members are
// copied, can be chunks of the new one as they are: those that are whole, and that stay
// where they are.
func (w *memberWriter) shareable(i, j int) int {
	if w.list.long == nil || w.old.long == nil || i != w.n || i&chunkMask != 0 {
		return 0
	}
	if j == w.old.Len() && j == w.list.Len() {
		j += chunkMask // the last one is whole, however few it has
	}
	return (j - i) >> chunkBits
}

// append appends members.
func (w *memberWriter) append(es ...*Entry) {
	if w.list.long == nil {
		w.list.few = append(w.list.few, es...)
		w.n += len(es)
		return
	}
	for len(es) > 0 {
		c := &w.list.long.chunks[w.n>>chunkBits]
		if *c == nil {
			*c = new(chunk)
		}
		k := copy((*c)[w.n&chunkMask:], es)
		w.n, es = w.n+k, es[k:]
	}
}

// set replaces the i-th member. The whole list is written.
func (w *memberWriter) set(i int, e *Entry) {
	if w.list.long == nil {
		w.list.few[i] = e
		return
	}
	at := i >> chunkBits
	c := w.list.long.chunks[at]
	if w.old.long != nil && at < len(w.old.long.chunks) && c == w.old.long.chunks[at] {
		own := *c
		c = &own
		w.list.long.chunks[at] = c
	}
	c[i&chunkMask] = e
}
