//go:build linux

package main

// This file owns the client: queries in flight over a few sockets, and the time of
// each answer. It knows nothing of servers.

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sockets   = 8
	perSocket = 13 // in flight: about 100 in all
	patience  = 100 * time.Millisecond
)

// client asks over a few sockets with sendmmsg and recvmmsg and measures
// each answer. It belongs to one goroutine, whose thread is the caller's to pin.
type client struct {
	packets [][]byte             // the queries
	next    int                  // of packets, in their random order
	expect  expect               // what each answer must be
	socks   [sockets]*socket     // each with perSocket queries in flight
	polls   [sockets]unix.PollFd // of socks

	sent, answered, lost, wrong int       // since forget
	times                       histogram // of what was answered
}

// expect is what an answer must be.
type expect struct {
	answers int
	rcode   byte
	echo    bool // the query itself
}

func (e expect) holds(reply []byte) bool {
	if len(reply) < 12 || reply[2]&0x80 == 0 {
		return false
	}
	return e.echo || int(binary.BigEndian.Uint16(reply[6:])) == e.answers && reply[3]&15 == e.rcode
}

// socket is one source port. A query's id is its place in flight.
type socket struct {
	fd       int
	in, out  messages
	free     []uint16
	at       [batch]int64 // when the query in flight was sent, ns; 0: none
	inFlight int
}

func newClient(server netip.AddrPort, ps [][]byte, e expect, seed uint64) (*client, error) {
	c := &client{expect: e}
	rng := rand.New(rand.NewPCG(seed, 7))
	for _, i := range rng.Perm(len(ps)) {
		c.packets = append(c.packets, ps[i])
	}
	for i := range c.socks {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("client socket: %w", err)
		}
		s := &socket{fd: fd}
		c.socks[i], c.polls[i] = s, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		s.in.init(false)
		s.out.init(false)
		for id := range uint16(perSocket) {
			s.free = append(s.free, id)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(server.Port()), Addr: server.Addr().As4()}); err != nil {
			c.close()
			return nil, fmt.Errorf("client socket: %w", err)
		}
	}
	return c, nil
}

func (c *client) close() {
	for _, s := range c.socks {
		if s != nil {
			_ = unix.Close(s.fd)
		}
	}
}

// forget drops what was counted.
func (c *client) forget() {
	c.sent, c.answered, c.lost, c.wrong, c.times = 0, 0, 0, 0, histogram{}
}

func now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// flood keeps the windows full until the time is over, and returns how long it took.
func (c *client) flood(d time.Duration) time.Duration {
	begin := now()
	end := begin + int64(d)
	for t := begin; t < end; t = now() {
		for _, s := range c.socks {
			c.send(s, len(s.free), t)
		}
		if c.receive() == 0 {
			c.wait(patience)
		}
	}
	lasted := now() - begin
	c.drain()
	return time.Duration(lasted)
}

// pace asks at a constant rate, watching the clock and the sockets all the time.
func (c *client) pace(d time.Duration, rate int) time.Duration {
	begin := now()
	step := int64(time.Second) / int64(rate)
	for k := int64(0); k*step < int64(d); k++ {
		due := begin + k*step
		for now() < due {
			c.receive()
		}
		s := c.socks[k%sockets]
		c.send(s, min(1, len(s.free)), now())
	}
	lasted := now() - begin
	c.drain()
	return time.Duration(lasted)
}

// drain waits for what is in flight and counts the rest as lost.
func (c *client) drain() {
	for c.inFlight() > 0 && c.wait(patience) {
		c.receive()
	}
	for _, s := range c.socks {
		for id, t := range s.at {
			if t != 0 {
				s.at[id] = 0
				s.free = append(s.free, uint16(id))
				c.lost++
			}
		}
		s.inFlight = 0
	}
}

func (c *client) inFlight() (n int) {
	for _, s := range c.socks {
		n += s.inFlight
	}
	return n
}

// wait returns when something can be received, or false after d.
func (c *client) wait(d time.Duration) bool {
	n, err := unix.Poll(c.polls[:], int(d/time.Millisecond))
	if n == 0 && err == nil {
		for _, s := range c.socks { // lost: let the window go on
			c.expire(s)
		}
	}
	return n > 0
}

func (c *client) expire(s *socket) {
	for id, t := range s.at {
		if t != 0 {
			s.at[id] = 0
			s.free = append(s.free, uint16(id))
			s.inFlight--
			c.lost++
		}
	}
}

// send sends n queries.
func (c *client) send(s *socket, n int, t int64) {
	if n == 0 {
		return
	}
	for i := range n {
		p := c.packets[c.next]
		if c.next++; c.next == len(c.packets) {
			c.next = 0
		}
		id := s.free[len(s.free)-1-i]
		copy(s.out.bufs[i][:], p)
		binary.BigEndian.PutUint16(s.out.bufs[i][:], id)
		s.out.iov[i].SetLen(len(p))
	}
	r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.out.hdrs[0])), uintptr(n),
		unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return
	}
	for i := range int(r) {
		s.at[s.free[len(s.free)-1-i]] = t
	}
	s.free = s.free[:len(s.free)-int(r)]
	s.inFlight += int(r)
	c.sent += int(r)
}

// receive takes what has arrived.
func (c *client) receive() (n int) {
	for _, s := range c.socks {
		if s.inFlight == 0 {
			continue
		}
		r, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.in.hdrs[0])), batch,
			unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			continue
		}
		t := now()
		for i := range int(r) {
			c.take(s, s.in.bufs[i][:s.in.hdrs[i].n], t)
			s.in.reset(i)
		}
		n += int(r)
	}
	return n
}

func (c *client) take(s *socket, reply []byte, t int64) {
	if len(reply) < 12 {
		c.wrong++
		return
	}
	id := binary.BigEndian.Uint16(reply)
	if int(id) >= len(s.at) || s.at[id] == 0 {
		return // counted as lost before
	}
	if !c.expect.holds(reply) {
		c.wrong++
	}
	c.times.add(t - s.at[id])
	s.at[id] = 0
	s.free = append(s.free, id)
	s.inFlight--
	c.answered++
}

// histogram counts durations in steps of 1/16.
type histogram struct {
	counts [40 * 16]int
	n      int
}

func (h *histogram) add(ns int64) {
	h.counts[bucket(ns)]++
	h.n++
}

func bucket(ns int64) int {
	v := uint64(max(ns, 16))
	exp := 0
	for v>>(exp+5) > 0 {
		exp++
	}
	return min(16*exp+int(v>>exp)-16, 40*16-1)
}

// quantile returns the lower bound of the step that has the quantile, in microseconds.
func (h *histogram) quantile(q float64) float64 {
	want := int(q * float64(h.n))
	for i, n := range h.counts {
		if want -= n; want < 0 {
			return float64(uint64(16+i%16)<<(i/16)) / 1000
		}
	}
	return 0
}
