//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// rawWriter is as little as can be done: messages are copied from templates
// that fit this benchmark's table alone and sent by 512 in one system call, of
// which the last asks for an acknowledgement. Refusals are not looked at but
// for the first that arrives.
type rawWriter struct {
	fd     int
	family uint16 // generic netlink's number for IPVS
	seq    uint32
	out    []byte
	queued int
	in     []byte
	proc   *os.File // /proc/net/ip_vs
}

// Numbers of linux/genetlink.h, linux/ip_vs.h.
const (
	ctrlGetFamily  = 3
	ctrlFamilyID   = 1
	ctrlFamilyName = 2

	cmdNewService = 1
	cmdNewDest    = 5
	cmdDelDest    = 7

	rawBatch = 512
)

var native = binary.NativeEndian

func newRawWriter(n *namespace) (writer, error) {
	w := &rawWriter{fd: -1, in: make([]byte, 64<<10)}
	err := n.do(func() (err error) {
		if w.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC); err != nil {
			return err
		}
		if err := unix.Bind(w.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		w.proc, err = os.Open("/proc/thread-self/net/ip_vs")
		return err
	})
	if err == nil {
		err = errors.Join(
			unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20),
			unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
			unix.Connect(w.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	}
	if err == nil {
		err = w.findFamily()
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("open IPVS: %w", err)
	}
	return w, nil
}

func (w *rawWriter) close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
	}
	if w.proc != nil {
		_ = w.proc.Close()
	}
}

func (w *rawWriter) findFamily() error {
	w.begin(unix.GENL_ID_CTRL, ctrlGetFamily)
	w.attr(ctrlFamilyName, []byte("IPVS\x00"))
	w.end()
	if _, err := unix.Write(w.fd, w.out); err != nil {
		return err
	}
	w.out, w.queued = w.out[:0], 0
	n, err := unix.Read(w.fd, w.in)
	if err != nil {
		return err
	}
	if native.Uint16(w.in[4:]) == unix.NLMSG_ERROR {
		return unix.Errno(-int32(native.Uint32(w.in[16:])))
	}
	for b := w.in[20:n]; len(b) >= 4; {
		size := int(native.Uint16(b))
		if size < 4 || size > len(b) {
			break
		}
		if native.Uint16(b[2:]) == ctrlFamilyID && size >= 6 {
			w.family = native.Uint16(b[4:])
			return nil
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return errors.New("the kernel does not tell IPVS' number")
}

// begin starts a message, end completes it.
func (w *rawWriter) begin(family uint16, cmd byte) {
	w.seq++
	w.queued = len(w.out)
	w.out = native.AppendUint32(w.out, 0)
	w.out = native.AppendUint16(w.out, family)
	w.out = native.AppendUint16(w.out, unix.NLM_F_REQUEST)
	w.out = native.AppendUint32(w.out, w.seq)
	w.out = append(w.out, 0, 0, 0, 0, cmd, 1, 0, 0)
}

func (w *rawWriter) end() { native.PutUint32(w.out[w.queued:], uint32(len(w.out)-w.queued)) }

func (w *rawWriter) attr(kind uint16, value []byte) {
	w.out = native.AppendUint16(w.out, uint16(4+len(value)))
	w.out = native.AppendUint16(w.out, kind)
	w.out = append(w.out, value...)
	for len(w.out)%4 != 0 {
		w.out = append(w.out, 0)
	}
}

// Every service, and every destination, has a template; only addresses differ.
var (
	serviceName = fields(1, [][]byte{u16(unix.AF_INET), u16(unix.IPPROTO_TCP), make([]byte, 16), {0, servicePort}})
	settings    = [][]byte{[]byte("wrr\x00"), append(u32(0), 0xff, 0xff, 0xff, 0xff), u32(0), u32(0xffffffff)}
	wholeName   = fields(1, append([][]byte{
		u16(unix.AF_INET), u16(unix.IPPROTO_TCP), make([]byte, 16),
		{0, servicePort},
		nil,
	}, settings...))
	destination = fields(2, [][]byte{
		make([]byte, 16),
		{backendPort >> 8, backendPort & 0xff},
		u32(0), u32(1), u32(0),
		u32(0),
	})
)

// Offsets of the addresses in the templates.
const (
	serviceAddr     = 4 + 8 + 8 + 4
	destinationAddr = 4 + 4
)

func u16(v uint16) []byte { return native.AppendUint16(nil, v) }
func u32(v uint32) []byte { return native.AppendUint32(nil, v) }

// fields is an attribute that holds others, numbered from 1; nil is left out.
func fields(kind uint16, values [][]byte) []byte {
	inner := rawWriter{}
	for i, v := range values {
		if v != nil {
			inner.attr(uint16(i+1), v)
		}
	}
	outer := rawWriter{}
	outer.attr(unix.NLA_F_NESTED|kind, inner.out)
	return outer.out
}

func (w *rawWriter) service(i int) error {
	vip := [4]byte{10, 96, byte(i >> 8), byte(i)}
	w.begin(w.family, cmdNewService)
	at := len(w.out)
	w.out = append(w.out, wholeName...)
	copy(w.out[at+serviceAddr:], vip[:])
	w.end()
	return w.maybeSend()
}

func (w *rawWriter) dest(cmd byte, i, j int) error {
	vip, addr := [4]byte{10, 96, byte(i >> 8), byte(i)}, [4]byte{10, byte(100 + j), byte(i >> 8), byte(i)}
	w.begin(w.family, cmd)
	at := len(w.out)
	w.out = append(append(w.out, serviceName...), destination...)
	copy(w.out[at+serviceAddr:], vip[:])
	copy(w.out[at+len(serviceName)+destinationAddr:], addr[:])
	w.end()
	return w.maybeSend()
}

func (w *rawWriter) maybeSend() error {
	if w.seq%rawBatch != 0 {
		return nil
	}
	return w.send()
}

// send sends what is queued and waits until the kernel has done it.
func (w *rawWriter) send() error {
	if len(w.out) == 0 {
		return nil
	}
	flags := w.out[w.queued+6:]
	native.PutUint16(flags, native.Uint16(flags)|unix.NLM_F_ACK)
	_, err := unix.Write(w.fd, w.out)
	w.out, w.queued = w.out[:0], 0
	if err != nil {
		return err
	}
	for {
		n, err := unix.Read(w.fd, w.in)
		if err != nil {
			return err
		}
		for b := w.in[:n]; len(b) >= 20; b = b[min(int(native.Uint32(b)+3)&^3, len(b)):] {
			if code := int32(native.Uint32(b[16:])); code != 0 {
				return unix.Errno(-code)
			}
			if native.Uint32(b[8:]) == w.seq {
				return nil
			}
		}
	}
}

func (w *rawWriter) load(services, backends int) error {
	for i := range services {
		if err := w.service(i); err != nil {
			return err
		}
		for j := range backends {
			if err := w.dest(cmdNewDest, i, j); err != nil {
				return err
			}
		}
	}
	return w.send()
}

func (w *rawWriter) move(i, add, del int) error {
	return errors.Join(w.dest(cmdNewDest, i, add), w.dest(cmdDelDest, i, del), w.send())
}

// verify counts the lines of the table, and understands none of them.
func (w *rawWriter) verify(services, backends int) error {
	if _, err := w.proc.Seek(0, io.SeekStart); err != nil {
		return err
	}
	lines := 0
	for {
		n, err := w.proc.Read(w.in)
		lines += bytes.Count(w.in[:n], []byte("\n"))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if want := services*(backends+1) + 3; lines != want {
		return fmt.Errorf("%d lines, want %d", lines, want)
	}
	return nil
}
