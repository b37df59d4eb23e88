//go:build linux

package main

// This file owns the server that returns each query as it came, which is the least
// that a server on this machine can do.

import (
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const batch = 32

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// messages are the buffers of recvmmsg and sendmmsg.
type messages struct {
	hdrs  [batch]mmsghdr
	iov   [batch]unix.Iovec
	names [batch]unix.RawSockaddrInet6
	bufs  [batch][4096 + 64]byte // so that they do not compete for cache lines
}

func (m *messages) init(withNames bool) {
	for i := range m.hdrs {
		m.iov[i].Base = &m.bufs[i][0]
		m.hdrs[i].hdr.Iov = &m.iov[i]
		m.hdrs[i].hdr.SetIovlen(1)
		if withNames {
			m.hdrs[i].hdr.Name = (*byte)(unsafe.Pointer(&m.names[i]))
		}
		m.reset(i)
	}
}

func (m *messages) reset(i int) {
	m.iov[i].SetLen(len(m.bufs[i]))
	if m.hdrs[i].hdr.Name != nil {
		m.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet6
	}
}

// serveEcho sends every packet back as a response: the least that a server
// in Go can do with recvmmsg and sendmmsg, in the runtime's poller.
func serveEcho(addr netip.AddrPort) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	m := new(messages)
	m.init(true)
	go echo(raw, m)
	return nil
}

func echo(raw interface {
	Read(f func(uintptr) bool) error
	Write(f func(uintptr) bool) error
}, m *messages,
) {
	var n, sent int
	recv := func(fd uintptr) bool {
		r, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&m.hdrs[0])), batch, unix.MSG_DONTWAIT,
			0, 0)
		n = int(r)
		return errno == 0
	}
	send := func(fd uintptr) bool {
		r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&m.hdrs[sent])), uintptr(n-sent),
			unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			r = 1
		}
		sent += int(r)
		return true
	}
	for {
		if err := raw.Read(recv); err != nil {
			return
		}
		for i := range n {
			m.bufs[i][2] |= 0x80 // QR
			m.iov[i].SetLen(int(m.hdrs[i].n))
		}
		for sent = 0; sent < n; {
			if err := raw.Write(send); err != nil {
				return
			}
		}
		for i := range n {
			m.reset(i)
		}
	}
}
