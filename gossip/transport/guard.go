package transport

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
)

// This file checks the first message of a stream, in either direction, before memberlist
// reads it.

// What a peer with the key can send to end a node with memberlist v0.7: an
// encrypted stream frame without content (index out of range), and anything in
// encryption version 0, whose padding memberlist cuts off unchecked (slice out of
// range). meshd writes only version 1, so the rest is refused before it is
// decrypted.
const (
	encryptedFrame   = 10 // memberlist's encryptMsg
	encryptedVersion = 1
	encryptedMin     = 30 // version, nonce, tag and one byte of content
	frameHead        = 6  // type, length, version
)

var (
	errFrame            = errors.New("stream frame that memberlist must not see")
	errTooMuch          = errors.New("too much is read ahead of too many streams")
	errTooLong          = errors.New("stream is longer than anything we send")
	_          net.Conn = (*stream)(nil)
)

// sanePacket reports whether memberlist may decrypt a packet.
func sanePacket(b []byte) bool {
	return len(b) >= encryptedMin && b[0] == encryptedVersion
}

// saneFrame reports whether memberlist may read a stream that begins with head.
// One that is not encrypted memberlist refuses itself.
func saneFrame(head []byte) bool {
	if head[0] != encryptedFrame {
		return true
	}
	long := head[1]|head[2]|head[3] != 0
	return (long || head[4] >= encryptedMin) && head[5] == encryptedVersion
}

// stream counts a connection's bytes, bounds those that come in, and checks the first
// frame that comes in, be it a request or an answer.
type stream struct {
	// Fixed when the stream begins.

	net.Conn            // to the peer
	t        *Transport // which counts it
	incoming bool       // the peer dialled
	remote   netip.Addr // of an incoming stream
	number   uint64     // in the order in which streams began

	// The guard of the first message.

	proven atomic.Bool  // the first message was opened by a key, and memberlist may read it
	guard  bool         // the first message is not yet checked; Read's own
	head   []byte       // read ahead by the guard, not yet handed on; Read's own
	holds  atomic.Int64 // bytes of head that count in Transport.held
	broken error        // why the first message is refused; every Read returns it

	left   int         // bytes that may still come in; Read's own
	closed atomic.Bool // Close was called
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) {
	if s.guard {
		s.guard = false
		s.broken = s.check()
	}
	if s.broken != nil {
		return 0, s.broken
	}
	if len(s.head) > 0 {
		n := copy(b, s.head)
		if s.head = s.head[n:]; len(s.head) == 0 {
			s.head = nil
			s.release()
		}
		return n, nil
	}
	if s.left <= 0 {
		s.t.rejected.Add(1)
		return 0, errTooLong
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	s.t.in.Add(uint64(max(n, 0)))
	return n, err
}

// check looks at the first message, as far as it takes to decide whether
// memberlist may see it. A message that it must not see ends the stream for good.
// What was read ahead is handed on.
func (s *stream) check() error {
	if !s.t.encrypted {
		return s.checkPlain()
	}
	head := make([]byte, frameHead)
	n, err := io.ReadFull(s.Conn, head[:1])
	if err == nil && head[0] == encryptedFrame {
		n, err = io.ReadFull(s.Conn, head[1:])
		n++
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	}
	s.t.in.Add(uint64(n))
	if err != nil {
		return err
	}
	s.head, s.left = head[:n], s.left-n
	if !saneFrame(head) {
		return s.reject()
	}
	if head[0] != encryptedFrame || s.t.opener == nil {
		return nil
	}
	return s.checkEncrypted(int(binary.BigEndian.Uint32(head[1:5])))
}

// checkEncrypted reads the rest of a frame of n bytes and looks into it.
func (s *stream) checkEncrypted(n int) error {
	if n > maxStreamBytes-5 {
		return s.reject()
	}
	for len(s.head) < 5+n {
		if err := s.ahead(5 + n - len(s.head)); err != nil {
			return err
		}
	}
	plain := s.t.opener.open(s.head[5:], s.head[:5])
	if plain == nil {
		return nil // memberlist cannot open it either, and tells the peer
	}
	if c := (content{b: plain}); !c.sane() {
		return s.reject()
	}
	s.proven.Store(true)
	return nil
}

// checkPlain looks into a first message that is not encrypted.
func (s *stream) checkPlain() error {
	var err error
	c := &content{}
	c.more = func() bool {
		err = s.ahead(4096)
		c.b = s.head
		return err == nil
	}
	if c.sane() {
		s.proven.Store(true)
		return nil // also if it has ended: memberlist reads what is there, and then the same
	}
	if err != nil {
		return err
	}
	return s.reject()
}

// reject counts a stream that memberlist must not see.
func (s *stream) reject() error {
	s.t.rejected.Add(1)
	return errFrame
}

// ahead reads some of the next n bytes into head.
func (s *stream) ahead(n int) error {
	if s.left <= 0 {
		s.t.rejected.Add(1)
		return errTooLong
	}
	n = min(n, 64<<10, s.left)
	if !s.t.hold(s, n) {
		return errTooMuch
	}
	had := len(s.head)
	s.head = slices.Grow(s.head, n)
	k, err := s.Conn.Read(s.head[had : had+n])
	s.head = s.head[:had+k]
	s.t.held.Add(int64(k - n))
	if s.holds.Add(int64(k)); s.closed.Load() {
		s.release()
	}
	s.t.in.Add(uint64(k))
	s.left -= k
	if k > 0 {
		return nil // an error comes again
	}
	if errors.Is(err, io.EOF) && len(s.head) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Write implements net.Conn.
func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.t.out.Add(uint64(max(n, 0)))
	return n, err
}

// release gives back what the guard has read ahead.
func (s *stream) release() {
	s.t.held.Add(-s.holds.Swap(0))
}

// Close implements net.Conn.
func (s *stream) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	s.t.untrack(s)
	s.release()
	return s.Conn.Close()
}
