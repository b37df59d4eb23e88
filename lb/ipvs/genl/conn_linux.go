package genl

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bounds of one exchange.
const (
	maxMessages   = 512
	maxBytes      = 64 << 10
	receiveBytes  = 64 << 10 // more than the kernel puts into one answer
	dumpAttempts  = 5
	socketBuffers = 8 << 20 // every error of a full write is an answer of its own
)

// socket is the seam to the kernel.
type socket interface {
	// send carries out all messages of b: the kernel works on them before it returns.
	send(b []byte) error
	// receive returns one datagram from the kernel. It gives up after the Conn's
	// limit with os.ErrDeadlineExceeded; ENOBUFS says that answers were lost.
	receive(b []byte) (int, error)
	close() error
}

// Conn is a connection to the IPVS of one network namespace. It is used by one
// goroutine at a time.
type Conn struct {
	sock   socket
	family uint16
	seq    uint32
	out    []byte
	in     []byte
}

// Dial opens a connection to the caller's network namespace; with inside, to
// that in which inside runs its argument. It loads the kernel's module if it
// can be loaded. An answer may take limit. The error wraps ErrNoIPVS if the
// kernel has none, and is the kernel's refusal if there is no privilege to ask.
func Dial(inside func(func() error) error, limit time.Duration) (*Conn, error) {
	family, err := lookUp()
	if err != nil {
		return nil, err
	}
	var s socket
	open := func() (err error) { s, err = openSocket(limit); return err }
	if inside == nil {
		err = open()
	} else {
		err = inside(open)
	}
	if err != nil {
		return nil, err
	}
	c := newConn(s, family)
	if _, err := c.Info(); err != nil { // also: is this allowed
		_ = c.Close()
		return nil, fmt.Errorf("ask IPVS for its version: %w", err)
	}
	return c, nil
}

// lookUp returns the number of IPVS' netlink family. Asking for it makes the
// kernel load the module. moby/ipvs asks once per process and takes a failure
// for the number 0, whose messages the kernel confirms without reading them.
func lookUp() (uint16, error) {
	f, err := netlink.GenlFamilyGet("IPVS")
	switch {
	case errors.Is(err, unix.ENOENT):
		return 0, ErrNoIPVS
	case err != nil:
		return 0, fmt.Errorf("look for IPVS: %w", err)
	case f.ID < 0x10:
		return 0, fmt.Errorf("look for IPVS: %w: family number %d", ErrMalformed, f.ID)
	}
	return f.ID, nil
}

func newConn(s socket, family uint16) *Conn {
	return &Conn{sock: s, family: family, out: make([]byte, 0, maxBytes), in: make([]byte, receiveBytes)}
}

// Close closes the connection; the kernel goes on balancing.
func (c *Conn) Close() error { return c.sock.close() }

// Do carries out requests in order. It returns nil if all succeeded, else an
// error (or nil) per request: an errno, or one that wraps ErrLost.
func (c *Conn) Do(reqs []Request) []error {
	var errs []error
	fail := func(i int, err error) {
		if errs == nil {
			errs = make([]error, len(reqs))
		}
		if errs[i] == nil {
			errs[i] = err
		}
	}
	for start := 0; start < len(reqs); {
		first := c.seq + 1
		n := c.encode(reqs[start:])
		err := c.sock.send(c.out)
		if err == nil {
			err = c.answers(first, n, func(i int, err error) { fail(start+i, err) })
		} else {
			err = fmt.Errorf("send to IPVS: %w", err)
		}
		if err != nil {
			for i := range n {
				fail(start+i, err)
			}
		}
		start += n
	}
	return errs
}

// encode fills c.out with as many requests as fit into one write and returns
// their number.
func (c *Conn) encode(reqs []Request) int {
	c.out = c.out[:0]
	last := 0
	for i := range min(len(reqs), maxMessages) {
		before := len(c.out)
		c.out = appendMessage(c.out, c.family, 0, c.seq+1, &reqs[i])
		if len(c.out) > maxBytes && i > 0 {
			c.out = c.out[:before]
			c.ackLast(last)
			return i
		}
		c.seq++
		last = before
	}
	c.ackLast(last)
	return min(len(reqs), maxMessages)
}

// ackLast makes the message at that offset ask for an acknowledgement.
func (c *Conn) ackLast(at int) {
	native.PutUint16(c.out[at+6:], native.Uint16(c.out[at+6:])|flagAck)
}

// answers reads the errors of n requests up to the answer to the last one.
func (c *Conn) answers(first uint32, n int, fail func(i int, err error)) error {
	return c.read(func(m *message) (done bool, err error) {
		i := m.seq - first
		if m.kind != typeError || i >= uint32(n) {
			return false, nil // of an exchange that was given up
		}
		errno, err := m.errno()
		if err != nil {
			return false, err
		}
		if errno != 0 {
			fail(int(i), unix.Errno(errno))
		}
		return i == uint32(n-1), nil
	})
}

// read hands messages to each until it is done.
func (c *Conn) read(each func(*message) (done bool, err error)) error {
	for {
		n, err := c.sock.receive(c.in)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("%w: %w", ErrLost, err)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("%w: %w", ErrLost, err)
		case err != nil:
			return fmt.Errorf("receive from IPVS: %w", err)
		}
		for rest := c.in[:n]; len(rest) > 0; {
			var m message
			if m, rest, err = nextMessage(rest); err != nil {
				return err
			}
			if done, err := each(&m); done || err != nil {
				return err
			}
		}
	}
}

// Services returns all services of the namespace, also those of others, with
// settings and counters, without destinations.
func (c *Conn) Services() (list []Service, err error) {
	err = c.dump(getService, nil, func() { list = list[:0] }, func(m *message) error {
		s, err := parseService(m)
		list = append(list, s)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list IPVS services: %w", err)
	}
	return list, nil
}

// Destinations appends the destinations of a service to list. A service that
// is missing has none.
func (c *Conn) Destinations(id ID, list []DestinationState) ([]DestinationState, error) {
	kept := len(list)
	err := c.dump(getDestination, &Service{ID: id}, func() { list = list[:kept] }, func(m *message) error {
		d, err := parseDestination(m, id.Family)
		list = append(list, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list IPVS destinations: %w", err)
	}
	return list, nil
}

// dump asks for a list, again if it changed meanwhile.
func (c *Conn) dump(cmd Command, svc *Service, restart func(), each func(*message) error) (err error) {
	for range dumpAttempts {
		restart()
		if err = c.ask(cmd, flagDump, svc, each); !errors.Is(err, ErrInterrupted) {
			return err
		}
	}
	return err
}

// Service returns one service, or ESRCH.
func (c *Conn) Service(id ID) (s Service, err error) {
	err = c.ask(getService, flagAck, &Service{ID: id}, func(m *message) (err error) {
		s, err = parseService(m)
		return err
	})
	return s, err
}

// Info asks the kernel for its version of IPVS.
func (c *Conn) Info() (in Info, err error) {
	err = c.ask(getInfo, flagAck, nil, func(m *message) (err error) {
		in, err = parseInfo(m)
		return err
	})
	if err == nil && in.Version == 0 {
		err = fmt.Errorf("%w: no version", ErrMalformed)
	}
	return in, err
}

// ask sends one request and hands what comes back to each, up to the
// acknowledgement or the end of the dump.
func (c *Conn) ask(cmd Command, flags uint16, svc *Service, each func(*message) error) error {
	c.seq++
	seq, interrupted := c.seq, false
	if svc != nil {
		c.out = appendMessage(c.out[:0], c.family, flags, seq, &Request{Command: cmd, Service: *svc})
	} else {
		c.out = appendHeader(c.out[:0], c.family, flagRequest|flags, seq, cmd)
	}
	if err := c.sock.send(c.out); err != nil {
		return fmt.Errorf("send to IPVS: %w", err)
	}
	err := c.read(func(m *message) (done bool, err error) {
		if m.seq != seq {
			return false, nil
		}
		interrupted = interrupted || m.flags&flagIntr != 0
		if m.kind == typeError || m.kind == typeDone {
			errno, err := m.errno()
			if err == nil && errno != 0 {
				err = unix.Errno(errno)
			}
			return true, err
		}
		if m.kind != c.family {
			return false, nil
		}
		return false, each(m)
	})
	if err == nil && interrupted {
		return ErrInterrupted
	}
	return err
}
