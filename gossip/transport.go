package gossip

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport wraps memberlist's transport: it counts bytes, gives every stream
// a deadline (memberlist writes user messages without one) and drops stream
// frames that would crash memberlist v0.7 (an encrypted frame with no content).
type transport struct {
	memberlist.NodeAwareTransport
	deadline time.Duration
	in, out  atomic.Uint64 // bytes of packets and streams, memberlist's own included
	streams  chan net.Conn
	stop     chan struct{} // closed: streams are refused
	over     chan struct{} // closed: the inner transport is
	wg       sync.WaitGroup
	rejected atomic.Uint64
}

func newTransport(inner memberlist.NodeAwareTransport, deadline time.Duration) *transport {
	t := &transport{NodeAwareTransport: inner, deadline: deadline, streams: make(chan net.Conn), stop: make(chan struct{}), over: make(chan struct{})}
	t.wg.Go(t.accept)
	return t
}

// accept hands incoming streams on, guarded. While the transport closes, it
// goes on taking them: the inner listener waits for somebody who does.
func (t *transport) accept() {
	for {
		select {
		case c := <-t.NodeAwareTransport.StreamCh():
			select {
			case t.streams <- &stream{Conn: c, t: t, guard: true}:
			case <-t.stop:
				_ = c.Close()
			}
		case <-t.over:
			return
		}
	}
}

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	t.out.Add(uint64(len(b)))
	return t.NodeAwareTransport.WriteToAddress(b, a)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	c, err := t.NodeAwareTransport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(t.deadline)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return &stream{Conn: c, t: t}, nil
}

// Shutdown implements memberlist.Transport.
func (t *transport) Shutdown() error {
	close(t.stop)
	err := t.NodeAwareTransport.Shutdown()
	close(t.over)
	t.wg.Wait()
	return err
}

// stream counts a connection's bytes and checks the first frame of an
// incoming one.
type stream struct {
	net.Conn
	t     *transport
	guard bool
	head  []byte // read ahead by the guard, not yet handed on
}

const (
	encryptedFrame = 10 // memberlist's encryptMsg
	encryptedMin   = 30 // nonce, tag, version and one byte of content
)

var errEmptyFrame = errors.New("encrypted stream frame without content")

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) {
	if s.guard {
		s.guard = false
		if err := s.check(); err != nil {
			return 0, err
		}
	}
	if len(s.head) > 0 {
		n := copy(b, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	n, err := s.Conn.Read(b)
	s.t.in.Add(uint64(max(n, 0)))
	return n, err
}

// check reads the frame's type and, of an encrypted one, its length.
func (s *stream) check() error {
	head := make([]byte, 5)
	n, err := io.ReadAtLeast(s.Conn, head, 1)
	if err != nil {
		return err
	}
	if head[0] == encryptedFrame && n < 5 {
		m, err := io.ReadFull(s.Conn, head[n:])
		if err != nil {
			return err
		}
		n += m
	}
	if n == 5 && head[0] == encryptedFrame && head[1] == 0 && head[2] == 0 && head[3] == 0 && head[4] < encryptedMin {
		s.t.rejected.Add(1)
		return errEmptyFrame
	}
	s.t.in.Add(uint64(n))
	s.head = head[:n]
	return nil
}

// Write implements net.Conn.
func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.t.out.Add(uint64(max(n, 0)))
	return n, err
}
