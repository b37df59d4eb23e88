package sim

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// dial is a connection request under way.
type dial struct {
	from *Port
	to   netip.AddrPort
	conn *Conn
	done chan error
	over bool // nobody waits any more
}

// try sends a connection request, and again after the retransmission time-out
// if it or its answer is lost. The caller holds the lock.
func (d *dial) try(rto time.Duration) {
	n := d.from.net
	if d.over {
		return
	}
	peer := n.ports[d.to]
	if peer == nil || peer.silent {
		return // nobody there: the dial times out
	}
	l, cut := n.link(d.from.host, peer.host)
	back, cutBack := n.link(peer.host, d.from.host)
	if (cut|cutBack)&CutStreams != 0 || n.chance(1-(1-l.Loss)*(1-back.Loss)) {
		n.after(rto, func() { d.try(2 * rto) })
		return
	}
	n.after(n.latency(l)+n.latency(back), func() { d.reach(peer) })
}

// reach ends a dial: the kernel of the other host takes the connection, even
// if its process is stopped, or refuses it.
func (d *dial) reach(peer *Port) {
	n := d.from.net
	switch {
	case d.over:
		return
	case peer.silent:
		return
	case peer.down:
		d.done <- syscall.ECONNREFUSED
		return
	}
	a, b := newConn(d.from, peer), newConn(peer, d.from)
	a.peer, b.peer = b, a
	d.conn = a
	n.arrive(peer.host, func() {
		select {
		case peer.streams <- b:
		default:
			b.abort()
		}
	})
	d.done <- nil
}

// Conn is one end of a stream: latency, in-order delivery, retransmission
// while the link is cut, a bounded window, deadlines.
type Conn struct {
	// The two ends.

	net    *Net  // which carries it
	port   *Port // of this end
	remote *Port // of the other end
	peer   *Conn // the other end

	// What is there to read.

	in       []byte        // arrived
	eof      bool          // the peer writes no more
	err      error         // the stream was reset
	readable chan struct{} // signals that one of these changed
	readBy   time.Time     // deadline of reads

	// What was written.

	out      []segmentOut  // waits to be sent
	sending  bool          // a segment is under way
	flight   int           // bytes written and not yet read by the peer
	last     time.Duration // when the last segment arrives: none overtakes it
	shut     bool          // nothing can be written any more
	writable chan struct{} // signals that there is room
	putBy    time.Time     // deadline of writes

	closed chan struct{} // closed by Close
}

type segmentOut struct {
	at   time.Duration
	data []byte
	fin  bool
}

func newConn(port, remote *Port) *Conn {
	c := &Conn{
		net: port.net, port: port, remote: remote, readable: make(chan struct{}, 1),
		writable: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	port.conns[c] = true
	return c
}

// window is how much may be under way.
const window = 512 << 10

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	for {
		c.net.awake(c.port.host)
		c.net.mu.Lock()
		by := c.readBy
		switch {
		case c.shut:
			c.net.mu.Unlock()
			return 0, net.ErrClosed
		case len(c.in) > 0:
			k := copy(b, c.in)
			c.in = c.in[k:]
			c.peer.flight -= k
			signal(c.peer.writable)
			c.net.mu.Unlock()
			return k, nil
		case c.eof || c.err != nil:
			err := c.err
			c.net.mu.Unlock()
			if err == nil {
				err = io.EOF
			}
			return 0, err
		}
		c.net.mu.Unlock()
		if err := c.wait(c.readable, by); err != nil {
			return 0, err
		}
	}
}

// wait waits for a signal until a deadline.
func (c *Conn) wait(ready chan struct{}, by time.Time) error {
	if by.IsZero() {
		select {
		case <-ready:
		case <-c.closed:
		}
		return nil
	}
	timer := time.NewTimer(time.Until(by))
	defer timer.Stop()
	select {
	case <-ready:
	case <-c.closed:
	case <-timer.C:
		return &net.OpError{Op: "io", Net: "stream", Err: os.ErrDeadlineExceeded}
	}
	return nil
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	sent := 0
	for sent < len(b) {
		c.net.awake(c.port.host)
		c.net.mu.Lock()
		if c.shut || c.err != nil {
			c.net.mu.Unlock()
			return sent, errors.Join(net.ErrClosed, c.err)
		}
		by := c.putBy
		if room := window - c.flight; room > 0 {
			k := min(room, len(b)-sent, 64<<10)
			c.queue(segmentOut{data: append([]byte(nil), b[sent:sent+k]...)})
			c.flight += k
			sent += k
			c.net.mu.Unlock()
			continue
		}
		c.net.mu.Unlock()
		if err := c.wait(c.writable, by); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// queue puts a segment on the wire behind those before it. The caller holds the lock.
func (c *Conn) queue(s segmentOut) {
	n := c.net
	l, _ := n.link(c.port.host, c.remote.host)
	d := n.latency(l) + time.Duration(len(s.data))*8 // 1 Gbit/s
	for rto := rtoData; n.chance(l.Loss); rto *= 2 {
		d += rto
	}
	c.last = max(c.last, n.now()+d)
	s.at = c.last
	c.out = append(c.out, s)
	if !c.sending {
		c.sending = true
		n.after(s.at-n.now(), func() { c.arrive(rtoData) })
	}
}

// arrive delivers the first segment under way, unless the link is cut: then it
// is sent again later.
func (c *Conn) arrive(rto time.Duration) {
	n := c.net
	if c.err != nil || len(c.out) == 0 {
		c.sending = false
		return
	}
	if _, cut := n.link(c.port.host, c.remote.host); cut&CutStreams != 0 {
		n.after(rto, func() { c.arrive(min(2*rto, time.Minute)) })
		return
	}
	s := c.out[0]
	c.out = c.out[1:]
	p := c.peer
	if s.fin {
		p.eof = true
	} else {
		p.in = append(p.in, s.data...)
	}
	signal(p.readable)
	if len(c.out) == 0 {
		c.sending = false
		return
	}
	n.after(max(c.out[0].at-n.now(), 0), func() { c.arrive(rtoData) })
}

// Close implements net.Conn. What was written still arrives.
func (c *Conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.shut {
		return net.ErrClosed
	}
	c.shut = true
	close(c.closed)
	delete(c.port.conns, c)
	if c.err == nil {
		c.queue(segmentOut{fin: true})
	}
	return nil
}

// abort ends both directions at once on this side, and on the other when it
// would hear of it. The caller holds the lock.
func (c *Conn) abort() {
	delete(c.port.conns, c)
	c.reset()
	if c.port.silent {
		return
	}
	l, cut := c.net.link(c.port.host, c.remote.host)
	if p := c.peer; p != nil && cut&CutStreams == 0 {
		c.net.after(c.net.latency(l), p.reset)
	}
}

// reset makes reads and writes fail.
func (c *Conn) reset() {
	if c.err == nil {
		c.err = errReset
		signal(c.readable)
		signal(c.writable)
	}
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.port.addr) }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote.addr) }

// SetDeadline implements net.Conn. It takes effect with the next Read or Write.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.readBy = t
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.putBy = t
	return nil
}
