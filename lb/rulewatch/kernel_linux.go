package rulewatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// receiveBuffer is the size of the socket's buffer in bytes, which the kernel doubles:
// room for some hundred transactions that have not been read yet.
const receiveBuffer = 64 << 10

// newGeneration is the type of the message that ends each transaction.
const newGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN

// Places in the header of a netlink message, in bytes (netlink(7)).
const (
	typeAt = 4
	portAt = 12 // of the socket that the transaction came from; the kernel writes it
)

// kernel is a socket in the group of nftables' messages.
type kernel struct {
	conn     *netlink.Conn
	raw      syscall.RawConn
	ownsPort func(port uint32) bool
	buf      [unix.NLMSG_HDRLEN]byte // the rest of a message is not read
}

// Open subscribes in the network namespace of that path, or the caller's own for "".
// own reports whether a netlink port is one of this process. The caller closes the
// result.
func Open(path string, own func(port uint32) bool) (Kernel, error) {
	cfg := &netlink.Config{}
	if path != "" {
		ns, err := netns.GetFromPath(path)
		if err != nil {
			return nil, fmt.Errorf("network namespace %s: %w", path, err)
		}
		defer ns.Close()
		cfg.NetNS = int(ns)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, cfg)
	if err != nil {
		return nil, fmt.Errorf("subscribe to nftables: %w", err)
	}
	k := &kernel{conn: conn, ownsPort: own}
	if k.raw, err = conn.SyscallConn(); err == nil {
		err = k.subscribe()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to nftables: %w", err), conn.Close())
	}
	return k, nil
}

// subscribe joins the group of nftables' messages with a filter that admits only the
// ends of transactions, so that the content of a large one is never copied.
func (k *kernel) subscribe() error {
	filter, err := bpf.Assemble(endsOfTransactions())
	if err == nil {
		err = k.conn.SetBPF(filter)
	}
	if err == nil {
		err = k.conn.SetReadBuffer(receiveBuffer)
	}
	if err == nil {
		err = k.Listen(true)
	}
	return err
}

// Listen implements Kernel.
func (k *kernel) Listen(on bool) error {
	if on {
		return k.conn.JoinGroup(unix.NFNLGRP_NFTABLES)
	}
	return k.conn.LeaveGroup(unix.NFNLGRP_NFTABLES)
}

// endsOfTransactions is the socket's filter. It compares bytes, since filters read
// longer numbers in network order, which netlink does not use.
func endsOfTransactions() []bpf.Instruction {
	var kind [2]byte
	binary.NativeEndian.PutUint16(kind[:], newGeneration)
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: typeAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(kind[0]), SkipTrue: 3},
		bpf.LoadAbsolute{Off: typeAt + 1, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(kind[1]), SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16}, // all of it
		bpf.RetConstant{Val: 0},
	}
}

// Close implements Kernel.
func (k *kernel) Close() error { return k.conn.Close() }

// Wait implements Kernel.
func (k *kernel) Wait() (int, error) {
	others, foreign := 0, false
	var failed error
	err := k.raw.Read(func(fd uintptr) bool {
		for read := 0; read < batch || others == 0 && !foreign; read++ { // transactions of our own alone do not end the wait
			size, from, err := unix.Recvfrom(int(fd), k.buf[:], 0)
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return others > 0 || foreign
			case errors.Is(err, unix.ENOBUFS):
				failed = ErrMissed
				return true
			case err != nil:
				failed = fmt.Errorf("hear of nftables: %w", err)
				return true
			case !ofKernel(from):
				foreign = true
			case size == len(k.buf) && !k.ownsPort(binary.NativeEndian.Uint32(k.buf[portAt:])):
				others++
			}
		}
		return true
	})
	if err != nil {
		return others, err
	}
	return others, failed
}

// ofKernel reports whether the kernel sent a message. Whoever has CAP_NET_ADMIN in the
// namespace can send messages to any netlink socket in it.
func ofKernel(from unix.Sockaddr) bool {
	sender, known := from.(*unix.SockaddrNetlink)
	return known && sender.Pid == 0
}
