package hostread

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long one list of the kernel may take, and how long all lists of its
// filters together.
const patience = 5 * time.Second

// Bounds of one list. Messages are handed on as they come, so that a longer list takes
// no more memory and time than these bounds allow.
const (
	maxMessages = 1 << 16
	maxForeign  = 1 << 10  // messages of other senders than the kernel before one of its own
	answerSize  = 64 << 10 // bytes of one read; the kernel sends at most half of that
)

var (
	errTooMuch     = errors.New("more than is looked at")
	errInterrupted = errors.New("it changed while it was read")
)

// conn is a netlink socket for questions to the kernel. It belongs to the network
// namespace of the thread that opened it. It is for one goroutine.
type conn struct {
	protocol int           // NETLINK_…
	fd       int           // -1: closed; the next question opens it again
	sequence uint32        // of the latest question
	patience time.Duration // how long the answer may take
	answer   []byte        // the buffer for messages
	lenient  bool          // a list that changes while it is read is no error
}

// dial opens a socket; the caller closes it.
func dial(protocol int) (*conn, error) {
	c := &conn{protocol: protocol, fd: -1, patience: patience, answer: make([]byte, answerSize)}
	if err := c.open(); err != nil {
		return nil, err
	}
	return c, nil
}

// open opens the socket, with a limit on the time that a read waits.
func (c *conn) open() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, c.protocol)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	wait := unix.NsecToTimeval(int64(c.patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return errors.Join(os.NewSyscallError("setsockopt", err), unix.Close(fd))
	}
	c.fd = fd
	return nil
}

// close closes the socket, if there is one and it is open.
func (c *conn) close() error {
	if c == nil || c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// dump asks for a list and calls take for each message, which begins with a header of
// the same size and must not be kept. An error of take ends the list: the socket is
// closed, so that the kernel does not make the rest, and opened again for the next
// question.
func (c *conn) dump(kind uint16, header, attributes []byte, take func([]byte) error) error {
	err := c.send(kind, unix.NLM_F_DUMP, header, attributes)
	if err == nil {
		err = c.receive(len(header), take)
	}
	if err != nil {
		return errors.Join(err, c.close())
	}
	return err
}

// send sends a question.
func (c *conn) send(kind, flags uint16, header, attributes []byte) error {
	if c.fd < 0 {
		if err := c.open(); err != nil {
			return err
		}
	}
	c.sequence++
	m := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(header)+len(attributes))
	m = append(append(m, header...), attributes...)
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(m[8:], c.sequence)
	return os.NewSyscallError("sendto", unix.Sendto(c.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
}

// receive calls take for each message until the end of the list.
func (c *conn) receive(header int, take func([]byte) error) error {
	until, interrupted := time.Now().Add(c.patience), false
	for messages := 0; ; {
		n, err := c.read(until)
		if err != nil {
			return err
		}
		for b := c.answer[:n]; len(b) >= unix.SizeofNlMsghdr; {
			m := message(b)
			if m == nil {
				return errors.New("a message of the kernel is cut")
			}
			b = b[min((len(m)+3)&^3, len(b)):]
			if binary.NativeEndian.Uint32(m[8:]) != c.sequence {
				continue
			}
			interrupted = interrupted || binary.NativeEndian.Uint16(m[6:])&unix.NLM_F_DUMP_INTR != 0
			switch kind := binary.NativeEndian.Uint16(m[4:]); {
			case kind == unix.NLMSG_DONE, kind == unix.NLMSG_ERROR:
				return endOfList(m, interrupted && !c.lenient)
			case len(m) < unix.SizeofNlMsghdr+header:
				continue
			}
			if messages++; messages > maxMessages || time.Now().After(until) {
				return errTooMuch
			}
			if err := take(m[unix.SizeofNlMsghdr:]); err != nil {
				return err
			}
		}
	}
}

// read returns the size of the next message of the kernel. It drops those of other
// senders: whoever has CAP_NET_ADMIN in a container's namespace may send to this
// socket.
func (c *conn) read(until time.Time) (int, error) {
	for range maxForeign {
		n, from, err := unix.Recvfrom(c.fd, c.answer, 0)
		sender, known := from.(*unix.SockaddrNetlink)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, fmt.Errorf("the kernel did not answer within %v", c.patience)
		case err != nil:
			return 0, os.NewSyscallError("recvfrom", err)
		case known && sender.Pid == 0:
			return n, nil
		}
		if time.Now().After(until) {
			break
		}
	}
	return 0, fmt.Errorf("%w: others write to the socket", errTooMuch)
}

// message returns the first message of an answer; nil: it is not complete.
func message(b []byte) []byte {
	n := int(binary.NativeEndian.Uint32(b))
	if n < unix.SizeofNlMsghdr || n > len(b) {
		return nil
	}
	return b[:n]
}

// endOfList returns the error that the last message of a list reports.
func endOfList(m []byte, interrupted bool) error {
	if len(m) >= unix.SizeofNlMsghdr+4 {
		if errno := int32(binary.NativeEndian.Uint32(m[unix.SizeofNlMsghdr:])); errno < 0 {
			return os.NewSyscallError("netlink", unix.Errno(-errno))
		}
	}
	if interrupted {
		return errInterrupted
	}
	return nil
}

// request asks for a single answer and returns it without the netlink header; nil:
// there is none.
func (c *conn) request(kind uint16, header, attributes []byte) []byte {
	if c.send(kind, 0, header, attributes) != nil {
		return nil
	}
	until := time.Now().Add(c.patience)
	for range maxPending {
		n, err := c.read(until)
		if err != nil || n < unix.SizeofNlMsghdr {
			return nil
		}
		m := message(c.answer[:n])
		if m == nil || binary.NativeEndian.Uint16(m[4:]) == unix.NLMSG_ERROR {
			return nil
		}
		if binary.NativeEndian.Uint32(m[8:]) == c.sequence {
			return m[unix.SizeofNlMsghdr:]
		}
	}
	return nil
}

// attribute appends an attribute to a message.
func attribute(to []byte, kind uint16, data []byte) []byte {
	to = binary.NativeEndian.AppendUint16(to, uint16(unix.SizeofNlAttr+len(data)))
	to = binary.NativeEndian.AppendUint16(to, kind)
	to = append(to, data...)
	for len(to)%4 != 0 {
		to = append(to, 0)
	}
	return to
}

// eachAttribute calls take for each attribute, with its type without flags.
func eachAttribute(b []byte, take func(kind uint16, data []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		n, kind := int(binary.NativeEndian.Uint16(b)),
			binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)
		if n < unix.SizeofNlAttr || n > len(b) {
			return
		}
		take(kind, b[unix.SizeofNlAttr:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// cString returns a string of the kernel without the zero at its end.
func cString(b []byte) string { return unix.ByteSliceToString(b) }

// uint32Of reads a number in network order; 0 if it does not have four bytes.
func uint32Of(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
