package transport

import (
	"net"
	"net/netip"
)

// This file owns how many streams there are, and which one ends for a newer one.

// track wraps a connection and counts it. It returns nil if there are too many,
// or none are taken any more.
func (t *Transport) track(c net.Conn, incoming bool) *stream {
	s := &stream{Conn: c, t: t, guard: true, left: maxStreamBytes}
	t.mu.Lock()
	ended, ok := t.admit(s, incoming)
	t.mu.Unlock()
	if ended != nil {
		_ = ended.Close()
	}
	if !ok {
		return nil
	}
	return s
}

// admit takes a stream in, and returns the one that has to end for it. The caller
// holds mu, and closes what is returned after it has released mu.
func (t *Transport) admit(s *stream, incoming bool) (ended *stream, ok bool) {
	if t.closed {
		return nil, false
	}
	t.numbered++
	s.number = t.numbered
	if incoming {
		s.remote, s.incoming = addrOf(s.RemoteAddr()), true
		if ended, ok = t.makeRoom(s.remote); !ok {
			return nil, false
		}
		t.incoming++
		t.streamsFrom[s.remote]++
	}
	t.open[s] = struct{}{}
	return ended, true
}

// makeRoom makes room for one more stream from an address. A peer without a key
// can open connections and say nothing; an honest peer shows its key within
// moments. So of the streams that have not shown one, the one that has waited
// longest ends: of the same address where its share is used up, else of all. The
// caller holds mu, and closes what is returned.
func (t *Transport) makeRoom(from netip.Addr) (ended *stream, ok bool) {
	all, share := t.incoming < maxStreams, t.streamsFrom[from] < maxStreamsFrom
	if all && share {
		return nil, true
	}
	t.refused.Add(1)
	ended = t.oldest(func(s *stream) bool { return share || s.remote == from })
	if ended == nil {
		return nil, false
	}
	t.drop(ended)
	return ended, true
}

// oldest returns the incoming stream that has waited longest to show a key, of
// those for which of is true; nil if all have shown one. The caller holds mu.
func (t *Transport) oldest(of func(*stream) bool) (found *stream) {
	for s := range t.open {
		if s.incoming && !s.proven.Load() && of(s) && (found == nil || s.number < found.number) {
			found = s
		}
	}
	return found
}

// hold takes n bytes for what s reads ahead, and reports false if there is no
// room. If too much is held, streams that have not shown a key end, those that
// have waited longest first.
func (t *Transport) hold(s *stream, n int) bool {
	for t.held.Add(int64(n)) > maxHeldBytes {
		t.held.Add(int64(-n))
		t.refused.Add(1)
		t.mu.Lock()
		ended := t.oldest(func(o *stream) bool { return o != s && o.holds.Load() > 0 })
		if ended != nil {
			t.drop(ended)
		}
		t.mu.Unlock()
		if ended == nil {
			return false
		}
		_ = ended.Close()
	}
	return true
}

// untrack stops counting a stream that has ended.
func (t *Transport) untrack(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(s)
}

// drop stops counting a stream. The caller holds mu.
func (t *Transport) drop(s *stream) {
	if _, ok := t.open[s]; !ok {
		return
	}
	delete(t.open, s)
	if s.incoming {
		t.incoming--
		if t.streamsFrom[s.remote]--; t.streamsFrom[s.remote] == 0 {
			delete(t.streamsFrom, s.remote)
		}
	}
}
