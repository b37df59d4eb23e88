package hostread

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long a question to the kernel may take.
const patience = 5 * time.Second

// maxMessages bounds the answer to one question.
const maxMessages = 1 << 16

var errTooMuch = errors.New("more than is looked at")

// dump asks a kind of list and hands each message, without its family's header
// of that size, to take.
func dump(c *netlink.Conn, kind uint16, header, attributes []byte, take func([]byte) error) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	all, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Dump},
		Data:   append(header, attributes...),
	})
	if err != nil {
		return err
	}
	if len(all) > maxMessages {
		return errTooMuch
	}
	for _, m := range all {
		if len(m.Data) < len(header) {
			continue
		}
		if err := take(m.Data); err != nil {
			return err
		}
	}
	return nil
}

// each hands the attributes of a message to take, by their type without flags.
func each(b []byte, take func(kind uint16, data []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)
		if n < unix.SizeofNlAttr || n > len(b) {
			return
		}
		take(kind, b[unix.SizeofNlAttr:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// text returns a string of the kernel without its end.
func text(b []byte) string { return unix.ByteSliceToString(b) }

func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
