package state

import (
	"errors"
	"fmt"
)

// This file owns this node's own stream: only here are versions made (S1).

// ownWriter writes this node's own stream in one network. It belongs to the
// table's goroutine.
type ownWriter struct {
	*streamSet
	inc       uint64         // the incarnation that the stream starts with
	committed func([]Change) // called with what this node states by its own hand; may be nil
	disbelief *Disbelief     // the store's
}

// Commit writes changes to this node's own stream, one version each, and
// reports whether there was anything to write: a change that states what is
// already stated costs nothing, and of several for one record the last counts.
// On an error nothing was written (S1, S13).
func (w *ownWriter) Commit(changes []Change) (bool, error) {
	if w.yielded {
		return false, fmt.Errorf("network %q: %w", w.network, ErrYielded)
	}
	s := w.own()
	changes = lastOfEach(changes)
	todo, err := w.admit(s, changes)
	if err != nil {
		return false, err
	}
	if w.committed != nil {
		w.committed(changes)
	}
	if len(todo) == 0 {
		return false, nil
	}
	w.touch(s, func() {
		for _, c := range todo {
			s.head.Version++
			r := Record{Kind: c.Kind, Key: c.Key, Version: s.head.Version, Deleted: c.Delete}
			if !c.Delete {
				r.Group, r.Body = c.Group, c.Body
			}
			w.put(s, w.entry(s, r))
		}
		w.trim(s)
	})
	return true, nil
}

// CommitEach writes what of the changes can be written, so that one that is
// refused blocks no other, and reports whether anything was. The errors are by
// the key of the record that was refused.
func (w *ownWriter) CommitEach(changes []Change) (written bool, refused map[string]error) {
	changed, err := w.Commit(changes)
	if err == nil || errors.Is(err, ErrYielded) {
		return changed, nil
	}
	refused = map[string]error{}
	for i := range changes {
		changed, err := w.Commit(changes[i : i+1])
		if err != nil {
			refused[changes[i].Key] = err
		}
		written = written || changed
	}
	return written, refused
}

// admit returns the changes that change something, after checking them against
// the limits. What does not grow the stream is always admitted.
func (w *ownWriter) admit(s *stream, changes []Change) (todo []Change, err error) {
	n, b := len(s.live), s.bytes
	grows := false
	for _, c := range changes {
		r := Record{Kind: c.Kind, Key: c.Key, Group: c.Group, Body: c.Body}
		old := s.current(c.Kind, c.Key)
		switch {
		case c.Delete && old == nil, !c.Delete && old != nil && old.Group() == c.Group && old.Body() == c.Body:
			continue
		case c.Delete:
			n--
			todo = append(todo, c)
			continue
		case c.Kind == 0 || len(c.Body) > MaxBody || len(c.Key) > MaxName || len(c.Group) > MaxName:
			return nil, invalid("record %q: kind %d, %d bytes; at most %d in the body and %d in a name", c.Key, c.Kind,
				len(c.Body), MaxBody, MaxName)
		}
		if _, err := newEntry(s, r); err != nil {
			return nil, invalid("record %q: %w", c.Key, err)
		}
		n, b = n+1, b+r.size()
		if old != nil {
			n, b = n-1, b-old.size()
		}
		grows = grows || old == nil || r.size() > old.size()
		todo = append(todo, c)
	}
	if err := s.admitNetworks(todo); err != nil {
		return nil, err
	}
	if grows && (n > w.limits.Entries || b > w.limits.Bytes) {
		return nil, fmt.Errorf("network %q: %w: at most %d records and %d bytes per node", w.network, ErrQuota,
			w.limits.Entries, w.limits.Bytes)
	}
	return todo, nil
}

// admitNetworks refuses more definitions of networks than others listen to.
func (s *stream) admitNetworks(changes []Change) error {
	more := 0
	for _, c := range changes {
		if c.Kind == KindNetwork && !c.Delete {
			more++
		}
	}
	if more == 0 {
		return nil
	}
	names := make(map[string]struct{}, more)
	for _, sl := range s.live {
		if e := sl.current; e.Kind() == KindNetwork {
			names[e.Key()] = struct{}{}
		}
	}
	for _, c := range changes {
		if c.Kind == KindNetwork {
			if names[c.Key] = struct{}{}; c.Delete {
				delete(names, c.Key)
			}
		}
	}
	if len(names) > maxNetworks {
		return fmt.Errorf("%w: at most %d networks per node; remove some that are not used", ErrQuota, maxNetworks)
	}
	return nil
}

// trim keeps the tombstones few (S6): above the limit the older half goes.
func (w *ownWriter) trim(s *stream) {
	if len(s.dead) > w.limits.Tombstones {
		vs := s.tombstones()
		s.raiseFloor(vs[len(vs)-w.limits.Tombstones/2-1])
	}
}

// Forget raises the floor of this node's own stream over the tombstones up to
// version v and reports whether that changed the head (S6: by age).
func (w *ownWriter) Forget(v uint64) bool {
	s := w.streams[w.self]
	if s == nil || w.yielded {
		return false
	}
	floor := uint64(0)
	for _, e := range s.dead {
		if e.version <= v {
			floor = max(floor, e.version)
		}
	}
	if floor <= s.head.Floor {
		return false
	}
	w.touch(s, func() { s.raiseFloor(floor) })
	return true
}

// Open makes this node's own, empty stream known: peers that still hold one of
// a former life replace it (S7).
func (w *ownWriter) Open() { w.own() }

// own returns this node's own stream, which lives from incarnation t.inc on.
// Its first version is 1, the empty one.
func (w *ownWriter) own() *stream {
	s := w.stream(w.self)
	if s.head.Inc == 0 {
		w.touch(s, func() { s.head = Head{Inc: w.inc, Version: 1, Floor: 1} })
		s.status = Alive
	}
	return s
}

// Reincarnate puts this node's own stream above an incarnation that the mesh
// has seen of it (S7): the same content, no tombstones, a new life.
func (w *ownWriter) Reincarnate(inc uint64) {
	w.inc = max(w.inc, inc)
	s := w.streams[w.self]
	if s == nil || s.head.Inc >= inc || w.yielded {
		return
	}
	w.touch(s, func() {
		s.raiseFloor(s.head.Version)
		s.head.Inc = inc
	})
}

// SelfAhead reports whether a head that a peer holds of this node's own stream
// is one that this node did not write: ahead of it, or equal with other
// content (S7). What is too far ahead to be true is not believed (S16).
func (w *ownWriter) SelfAhead(h Head) bool {
	if h.beyond() || !w.believesOwn(h.Inc) {
		return false
	}
	s := w.streams[w.self]
	if s == nil || s.head.Inc == 0 {
		return h.Inc >= w.inc
	}
	c := h.Compare(s.head)
	return c > 0 || c == 0 && h.Sum != s.head.Sum
}

// SelfRetired reports whether a peer has retired this node's own stream at a head
// above which it must go to be accepted there again (S9).
func (w *ownWriter) SelfRetired(h Head) bool {
	own, ok := w.Head(w.self)
	return ok && own.Version > 0 && h.Inc >= own.Inc && !h.beyond() && w.believesOwn(h.Inc)
}

// Leave makes this node's own stream its last, empty snapshot (S9: a graceful
// leave).
func (w *ownWriter) Leave() {
	s := w.streams[w.self]
	if s == nil || w.yielded {
		return
	}
	w.touch(s, func() {
		w.empty(s)
		s.head.Version++
		s.head.Floor = s.head.Version
	})
}

// Own returns this node's own live entries of a kind, sorted by key.
func (w *ownWriter) Own(k Kind) []*Entry { return w.OwnerEntries(w.self, k) }

// ownEntry returns this node's own live, readable record, or nil.
func (w *ownWriter) ownEntry(k Kind, key string) *Entry {
	s := w.streams[w.self]
	if s == nil {
		return nil
	}
	e := s.current(k, key)
	if e == nil || e.poison {
		return nil
	}
	return e
}

// believesOwn reports whether a peer's claim about the incarnation of this
// node's own stream can be true: then it is answered by a higher one (S7). What
// is not believed is counted.
func (w *ownWriter) believesOwn(claimed uint64) bool {
	own := w.inc
	if s := w.streams[w.self]; s != nil {
		own = max(own, s.head.Inc)
	}
	if claimed <= own+incarnationStep {
		return true
	}
	w.disbelief.Count++
	w.disbelief.Inc = claimed
	return false
}
