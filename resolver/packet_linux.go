package resolver

// This file owns the UDP socket with the fast path before it, in batches.

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many packets one system call moves at most, batchBuf the
// room for each: Server.UDPSize. The buffers begin a cache line further than a
// page apart, or else all of them would compete for the same lines of the cache.
const (
	batchSize = 32
	batchBuf  = 4096
	batchStep = batchBuf + 64
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received or sent
}

// batchConn is a socket that answers what it can on reading, in batches: one
// recvmmsg, the answers written into the receive buffers, one sendmmsg to the
// addresses as the kernel gave them. What it cannot answer it hands out one by
// one. Reading must be done by one goroutine.
type batchConn struct {
	*net.UDPConn
	raw  syscall.RawConn // of the same socket
	fast *fastPath       // that answers
	gate *gate           // nil: all clients are served

	// What the kernel reads and writes. Packet i of a batch is in bufs[i], and its
	// sender in names[i]; iov[i] and in[i] point to them for good.
	in    [batchSize]mmsghdr               // received
	out   [batchSize]mmsghdr               // replies, which share the buffers of in
	iov   [batchSize]unix.Iovec            // the length of what is received or sent
	names [batchSize]unix.RawSockaddrInet6 // large enough for both families
	bufs  [batchSize][batchStep]byte       // packets, then replies

	// The batch. Invariants: sent <= replies <= count; next <= count <= batchSize.
	qs          [batchSize]asked // the questions that the fast path can read
	from        [batchSize]int   // which packet each of qs is
	slow        [batchSize]bool  // packets to hand out
	next, count int              // of the packets being handed out
	replies     int              // in out
	sent        int              // of out
	errno       syscall.Errno    // of the last recvmmsg

	recv, send func(fd uintptr) bool // bound once: no allocation per batch
}

func newBatchConn(c *net.UDPConn, f *fastPath, g *gate) (net.PacketConn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	b := &batchConn{UDPConn: c, raw: raw, fast: f, gate: g}
	for i := range batchSize {
		b.iov[i].Base = &b.bufs[i][0]
		b.in[i].hdr.Iov = &b.iov[i]
		b.in[i].hdr.SetIovlen(1)
		b.in[i].hdr.Name = (*byte)(unsafe.Pointer(&b.names[i]))
	}
	b.recv, b.send = b.recvmmsg, b.sendmmsg
	return b, nil
}

// ReadFrom returns the next packet that the fast path did not answer.
func (b *batchConn) ReadFrom(buf []byte) (int, net.Addr, error) {
	for {
		for b.next < b.count {
			i := b.next
			b.next++
			if b.slow[i] {
				n := copy(buf, b.bufs[i][:b.in[i].n])
				return n, b.peer(i), nil
			}
		}
		if err := b.receive(); err != nil {
			return 0, nil, err
		}
		b.answer()
	}
}

// receive waits for the next batch.
func (b *batchConn) receive() error {
	for i := range b.count {
		b.iov[i].SetLen(batchBuf)
		b.in[i].hdr.Namelen = unix.SizeofSockaddrInet6
	}
	if b.count == 0 { // the first time, or after an error
		for i := range batchSize {
			b.iov[i].SetLen(batchBuf)
			b.in[i].hdr.Namelen = unix.SizeofSockaddrInet6
		}
	}
	b.next, b.count = 0, 0
	if err := b.raw.Read(b.recv); err != nil {
		return err
	}
	if b.errno != 0 {
		return &net.OpError{Op: "recvmmsg", Net: "udp", Addr: b.LocalAddr(), Err: b.errno}
	}
	return nil
}

// recvmmsg is one call; false means wait and call again. It does not block, so
// Go's scheduler need not know of it: on one processor the scheduler would give
// this goroutine's place away and start another thread for it every time.
func (b *batchConn) recvmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in[0])), batchSize,
			unix.MSG_DONTWAIT, 0, 0)
		switch b.errno = errno; errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			b.count = int(n)
		}
		return true
	}
}

// answer answers what the fast path can, and marks the rest.
func (b *batchConn) answer() {
	b.replies, b.sent = 0, 0
	if b.gate != nil {
		b.gate.begin()
	}
	n := b.parse(b.fast.begin())
	b.fast.prefetch(b.qs[:n])
	for k := range n {
		i := b.from[k]
		reply := b.fast.reply(&b.qs[k], b.bufs[i][:batchBuf])
		if reply == 0 {
			b.slow[i] = true
			continue
		}
		b.reply(i, reply)
	}
	for b.sent < b.replies {
		if b.raw.Write(b.send) != nil {
			break // closed: replies are lost like any datagram
		}
	}
	b.fast.counts.flush(b.fast.server.met)
	if b.gate != nil {
		b.gate.counts.flush(b.fast.server.met)
	}
}

// reply marks packet i as replied to: its buffer holds a reply of so many bytes.
func (b *batchConn) reply(i, length int) {
	b.iov[i].SetLen(length)
	b.out[b.replies].hdr = b.in[i].hdr
	b.replies++
}

// parse reads the questions that the fast path understands, if it works at all,
// marks those for the ordinary path, and returns how many it read. Packets of
// clients that are not served end here.
func (b *batchConn) parse(fast bool) (n int) {
	for i := range b.count {
		client := b.client(i).Addr()
		if b.gate != nil {
			if a := b.gate.admit(client); a != admitted {
				b.slow[i] = false
				if reply := b.gate.reply(a, b.bufs[i][:batchBuf], int(b.in[i].n)); reply > 0 {
					b.reply(i, reply)
				}
				continue
			}
		}
		b.from[n] = i
		b.slow[i] = !fast || !b.fast.read(&b.qs[n], b.bufs[i][:batchBuf], int(b.in[i].n), client)
		if !b.slow[i] {
			n++
		}
	}
	return n
}

// sendmmsg sends what it can at once, without blocking. A reply that cannot be sent is skipped:
// the client asks again.
func (b *batchConn) sendmmsg(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.out[b.sent])),
		uintptr(b.replies-b.sent), unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		b.sent += max(1, int(n))
	case unix.EINTR:
	default:
		b.sent++
	}
	return true
}

// client returns the address of packet i, without its zone.
func (b *batchConn) client(i int) netip.AddrPort {
	name := &b.names[i]
	// Both families have the port at the same place, in network order.
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), port)
}

// peer is the address of packet i in the form that WriteTo takes.
func (b *batchConn) peer(i int) net.Addr {
	a := net.UDPAddrFromAddrPort(b.client(i))
	if b.names[i].Family == unix.AF_INET6 && b.names[i].Scope_id != 0 {
		a.Zone = strconv.FormatUint(uint64(b.names[i].Scope_id), 10)
	}
	return a
}
