package hostread

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a list of the kernel may take, and all that is read of
// its filters.
const patience = 5 * time.Second

// Bounds of one list. It is read as it comes, so that a longer one takes no more
// memory and time than that.
const (
	maxMessages = 1 << 16
	maxStrange  = 1 << 10  // messages of others than the kernel, before one of its own
	answerSize  = 64 << 10 // of one read: the kernel hands out at most half of that
)

var (
	errTooMuch     = errors.New("more than is looked at")
	errInterrupted = errors.New("it changed while it was read")
)

// conn is a netlink socket that is asked for lists. It belongs to the network
// namespace of the thread that opened it.
type conn struct {
	protocol int
	fd       int
	sequence uint32
	patience time.Duration // of one list
	answer   []byte        // where messages are while they are taken
	lenient  bool          // what changes while it is read is no error
}

// dial opens a socket; the caller closes it.
func dial(protocol int) (*conn, error) {
	c := &conn{protocol: protocol, fd: -1, patience: patience, answer: make([]byte, answerSize)}
	if err := c.open(); err != nil {
		return nil, err
	}
	return c, nil
}

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

func (c *conn) close() error {
	if c == nil || c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// dump asks for a kind of list and hands each message, which begins with a header
// of that size, to take, which must not keep it. The rest of a list of which no
// more is wanted is never made: its socket is closed, and another one opened for
// the next question.
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

// receive takes messages until the end of the list.
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

// read returns the size of what the kernel sends next. Others may send to the
// socket, too: who has CAP_NET_ADMIN in the namespace of a container has it there.
func (c *conn) read(until time.Time) (int, error) {
	for range maxStrange {
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

// message returns the first message of an answer; nil: it is not whole.
func message(b []byte) []byte {
	n := int(binary.NativeEndian.Uint32(b))
	if n < unix.SizeofNlMsghdr || n > len(b) {
		return nil
	}
	return b[:n]
}

// ending returns what the last message of a list says.
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

// one asks for a single answer and returns it without the header of a message; nil:
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

// each hands the attributes of a message to take, by their type without flags.
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

// text returns a string of the kernel without its end.
func cString(b []byte) string { return unix.ByteSliceToString(b) }

func uint32Of(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
