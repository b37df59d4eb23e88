package nftconn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// asker asks nf_tables and conntrack questions on a socket of its own, with a
// large buffer: the kernel answers in messages as large as the buffer it has
// seen, at most 32 KiB, and starts from a map's first element again for each,
// so that the cost of a large map is its size squared divided by the size of a
// message.
type asker struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	buf  []byte
}

// answerBuffer is larger than any message of an answer, and answerLimit bounds
// the wait for one.
const (
	answerBuffer = 64 << 10
	answerLimit  = 10 * time.Second
)

func openAsker(ns int) (*asker, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &asker{conn: conn, raw: raw, buf: make([]byte, answerBuffer)}, nil
}

// port returns that of the socket.
func (a *asker) port() uint32 { return a.conn.PID() }

func (a *asker) close() error { return a.conn.Close() }

// ErrInterrupted says that something changed while the kernel answered, so
// that parts of the answer may be missing.
var ErrInterrupted = errors.New("changed while it was read")

// Subsystems of nfnetlink, the upper byte of a message's type.
const (
	SubsystemConntrack = unix.NFNL_SUBSYS_CTNETLINK << 8
	SubsystemNftables  = unix.NFNL_SUBSYS_NFTABLES << 8
)

// ask sends one question and calls each with every message of the answer,
// which is valid until each returns. For more than one message, flags must
// have netlink.Dump. After an error of each the rest is passed over.
func (a *asker) ask(kind uint16, family byte, flags netlink.HeaderFlags, attrs []netlink.Attribute,
	each func(msg []byte) error,
) error {
	body, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return fmt.Errorf("encode question: %w", err)
	}
	if err := a.conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	sent, err := a.conn.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, body...),
	})
	if err != nil {
		return err
	}
	in := answer{seq: sent.Header.Sequence, dump: flags&netlink.Dump == netlink.Dump, each: each}
	for !in.done {
		b, err := a.receive()
		if err != nil {
			return err
		}
		if err := in.take(b); err != nil {
			return err
		}
	}
	if in.err == nil && in.interrupted {
		return ErrInterrupted
	}
	return in.err
}

// receive returns what one system call reads.
func (a *asker) receive() ([]byte, error) {
	var n int
	var err error
	waitErr := a.raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), a.buf, unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if waitErr != nil {
		err = waitErr
	}
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return a.buf[:n], nil
}

// answer is what is known of an answer so far.
type answer struct {
	seq               uint32
	dump              bool
	each              func(msg []byte) error
	done, interrupted bool
	err               error // the first of each, or the kernel's
}

var errShort = errors.New("message or attribute is cut short")

// take goes through the messages that were received together.
func (in *answer) take(b []byte) error {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return errShort
		}
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return errShort
		}
		if binary.NativeEndian.Uint32(b[8:]) == in.seq { // not of an earlier question that ended in an error
			if err := in.message(binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]),
				b[unix.NLMSG_HDRLEN:size]); err != nil {
				return err
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

func (in *answer) message(kind, flags uint16, body []byte) error {
	in.interrupted = in.interrupted || flags&unix.NLM_F_DUMP_INTR != 0
	switch kind {
	case unix.NLMSG_DONE, unix.NLMSG_ERROR:
		if len(body) < 4 {
			return errShort
		}
		in.done = true
		if code := int32(binary.NativeEndian.Uint32(body)); code < 0 && in.err == nil {
			in.err = unix.Errno(-code)
		}
	default:
		if len(body) < 4 {
			return errShort
		}
		in.done = !in.dump
		if in.err == nil {
			in.err = in.each(body[4:]) // behind the header of nfnetlink
		}
	}
	return nil
}

// EachAttribute calls f with the type and the content of every attribute.
func EachAttribute(b []byte, f func(kind uint16, data []byte) error) error {
	for len(b) > 0 {
		if len(b) < unix.NLA_HDRLEN {
			return errShort
		}
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.NLA_HDRLEN || size > len(b) {
			return errShort
		}
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := f(kind, b[unix.NLA_HDRLEN:size]); err != nil {
			return err
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

// Ask sends a question to a subsystem of nfnetlink and calls each with every message
// of the answer, which is valid until each returns. For more than one message, flags
// must have netlink.Dump. After an error of each the rest is passed over.
func (c *Conn) Ask(kind uint16, family byte, flags netlink.HeaderFlags, attrs []netlink.Attribute,
	each func(msg []byte) error,
) error {
	return c.queries.ask(kind, family, flags, attrs, each)
}
