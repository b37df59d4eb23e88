package gossip

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
)

// What a peer that holds the key can send to end a node with memberlist v0.7:
// an encrypted stream frame without content (index out of range), and anything
// in encryption version 0, whose padding is cut off unchecked (slice out of
// range). We write version 1 only, so that the rest can be refused before it is
// decrypted.
const (
	encryptedFrame   = 10 // memberlist's encryptMsg
	encryptedVersion = 1
	encryptedMin     = 30 // version, nonce, tag and one byte of content
	frameHead        = 6  // type, length, version
)

var (
	errFrame            = errors.New("stream frame that memberlist must not see")
	errTooLong          = errors.New("stream is longer than anything we send")
	_          net.Conn = (*stream)(nil)
)

// sanePacket reports whether memberlist may decrypt a packet.
func sanePacket(b []byte) bool {
	return len(b) >= encryptedMin && b[0] == encryptedVersion
}

// saneFrame reports whether memberlist may read a stream that begins so. A
// stream that is not encrypted is for memberlist to refuse.
func saneFrame(head []byte) bool {
	if head[0] != encryptedFrame {
		return true
	}
	long := head[1]|head[2]|head[3] != 0
	return (long || head[4] >= encryptedMin) && head[5] == encryptedVersion
}

// stream counts a connection's bytes, bounds those that come in and checks the
// first frame that comes in, be it a request or an answer.
type stream struct {
	net.Conn
	t        *transport
	incoming bool
	remote   netip.Addr
	guard    bool   // the first frame is not yet checked
	head     []byte // read ahead by the guard, not yet handed on
	left     int    // bytes that may come in; only Read uses it
	broken   error  // why the first frame was not to be had; every Read says so
	closed   atomic.Bool
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
		s.head = s.head[n:]
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

// check reads the head of the first frame; a frame that memberlist must not see
// ends the stream for good.
func (s *stream) check() error {
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
	if !saneFrame(head) {
		s.t.rejected.Add(1)
		return errFrame
	}
	s.head, s.left = head[:n], s.left-n
	return nil
}

// Write implements net.Conn.
func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.t.out.Add(uint64(max(n, 0)))
	return n, err
}

// Close implements net.Conn.
func (s *stream) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	s.t.untrack(s)
	return s.Conn.Close()
}
