package main

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// stream is one end of a connection in memory.
type stream struct {
	wire  *wire         // on which it is
	from  *transport    // this end's
	to    *transport    // the other end's
	peer  *stream       // the other end
	ready chan struct{} // holds a token if there may be something new to read

	mu sync.Mutex // guards everything that follows

	// What it receives.

	arriving [][]byte  // on the way, in order; nil is the end
	lastAt   time.Time // when the last of them arrives
	buf      []byte    // arrived and not yet read
	ended    bool      // the peer closed, and all has arrived

	closed   bool      // this end closed
	deadline time.Time // of Read; zero: none
}

func (w *wire) pipe(a, b *transport) (near, far *stream) {
	near = &stream{wire: w, from: a, to: b, ready: make(chan struct{}, 1)}
	far = &stream{wire: w, from: b, to: a, ready: make(chan struct{}, 1)}
	near.peer, far.peer = far, near
	return near, far
}

// send puts data on the way to s; nil is the end of the stream.
func (s *stream) send(data []byte, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Now().Add(delay)
	if at.Before(s.lastAt) {
		at = s.lastAt
	}
	s.lastAt = at
	s.arriving = append(s.arriving, data)
	time.AfterFunc(time.Until(at), s.arrive)
}

// arrive takes the first piece that is on the way.
func (s *stream) arrive() {
	s.mu.Lock()
	data := s.arriving[0]
	s.arriving = s.arriving[1:]
	s.buf = append(s.buf, data...)
	s.ended = s.ended || data == nil
	s.mu.Unlock()
	s.wake()
}

func (s *stream) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	for {
		n, deadline, err := s.take(p)
		if n > 0 || err != nil {
			return n, err
		}
		var expired <-chan time.Time
		if !deadline.IsZero() {
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-s.ready:
		case <-expired:
		}
	}
}

func (s *stream) take(p []byte) (int, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, s.deadline, net.ErrClosed
	case len(s.buf) > 0:
		n := copy(p, s.buf)
		s.buf = s.buf[n:]
		return n, s.deadline, nil
	case s.ended:
		return 0, s.deadline, io.EOF
	case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
		return 0, s.deadline, os.ErrDeadlineExceeded
	}
	return 0, s.deadline, nil
}

// Write implements net.Conn. A connection that is cut swallows what it is
// given.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	s.wire.mu.Lock()
	cut, delay := s.wire.isCut(s.from.index, s.to.index), s.wire.streamDelay(len(p))
	s.wire.mu.Unlock()
	if !cut && len(p) > 0 {
		s.peer.send(append([]byte(nil), p...), delay)
	}
	return len(p), nil
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	s.wake()
	s.wire.mu.Lock()
	cut, delay := s.wire.isCut(s.from.index, s.to.index), s.wire.lag()
	s.wire.mu.Unlock()
	if !was && !cut {
		s.peer.send(nil, delay)
	}
	return nil
}

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return tcp(s.from.addr) }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return tcp(s.to.addr) }

func tcp(a *net.UDPAddr) net.Addr { return &net.TCPAddr{IP: a.IP, Port: a.Port} }

// SetDeadline implements net.Conn; writes never wait.
func (s *stream) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	s.deadline = t
	s.mu.Unlock()
	s.wake()
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(time.Time) error { return nil }
