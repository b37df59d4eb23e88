package resolver

// This file owns TCP connections: their bounds, and replies out of order.

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// tcpPipeline is how many questions of one connection are answered at once.
const tcpPipeline = 128

// tcpWriteTimeout bounds one reply to a client that does not read.
const tcpWriteTimeout = 4 * time.Second

// tcpListener bounds the connections, in total and per client. It hands out
// conns, on which replies can be written out of order (RFC 7766 §6.2.1.1).
type tcpListener struct {
	net.Listener
	total, perClient int
	full             func()
	serves           func(netip.Addr) bool // nil: all clients are served

	mu      sync.Mutex // guards clients and open
	clients map[netip.Addr]int
	open    int
}

// Accept returns the next connection within the limits; others are closed.
func (l *tcpListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := addrPort(c.RemoteAddr()).Addr()
		client := clientKey(from)
		if l.serves != nil && !l.serves(from) {
			c.Close()
			continue
		}
		if l.admit(client) {
			return &conn{Conn: c, slots: make(chan struct{}, tcpPipeline), release: func() { l.leave(client) }}, nil
		}
		l.full()
		c.Close()
	}
}

func (l *tcpListener) admit(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.total || l.clients[client] >= l.perClient*shares(client) {
		return false
	}
	l.open++
	l.clients[client]++
	return true
}

func (l *tcpListener) leave(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.clients[client]--; l.clients[client] == 0 {
		delete(l.clients, client)
	}
}

// conn is a connection whose questions are answered concurrently. Its remote
// address carries it through the DNS library to the handler.
type conn struct {
	net.Conn
	slots   chan struct{}  // bounds the questions being answered
	pending sync.WaitGroup // questions being answered
	release func()
	once    sync.Once
	wmu     sync.Mutex // serialises writes
}

type connAddr struct {
	net.Addr
	conn *conn
}

func (c *conn) RemoteAddr() net.Addr { return connAddr{c.Conn.RemoteAddr(), c} }

// answer runs f for one question, concurrently with others of the connection
// but for the limit. It blocks while the limit is reached.
func (c *conn) answer(f func()) {
	c.slots <- struct{}{}
	c.pending.Add(1)
	go func() {
		defer func() { c.pending.Done(); <-c.slots }()
		f()
	}()
}

// reply writes one message with its length (RFC 1035 §4.2.2).
func (c *conn) reply(msg []byte) error {
	if len(msg) > 65535 {
		return fmt.Errorf("reply of %d bytes over TCP: at most 65535", len(msg))
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg)))
	_, err := c.Write(append(b, msg...))
	return err
}

// Write writes b as a whole. An error closes the connection.
func (c *conn) Write(b []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.SetWriteDeadline(time.Now().Add(tcpWriteTimeout))
	n, err := c.Conn.Write(b)
	if err != nil { // half a reply may be out, and the other replies should not wait as long
		c.Conn.Close()
	}
	return n, err
}

// Close waits for the questions being answered, which are bounded in time,
// then closes.
func (c *conn) Close() error {
	c.pending.Wait()
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}

// addrPort reads the address of a UDP or TCP peer; the zero value if it is neither.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort()
	case *net.TCPAddr:
		return a.AddrPort()
	case connAddr:
		return addrPort(a.Addr)
	}
	return netip.AddrPort{}
}
