package nftconn

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Message encodes a message to nf_tables about one family.
func Message(f *Family, kind uint16, flags netlink.HeaderFlags, attrs []netlink.Attribute) (netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return netlink.Message{}, fmt.Errorf("encode message: %w", err)
	}
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | netlink.Acknowledge | flags,
		},
		Data: append([]byte{f.Proto, unix.NFNETLINK_V0, 0, 0}, data...),
	}, nil
}

// SendBatch sends messages as one transaction.
func (c *Conn) SendBatch(messages ...netlink.Message) error {
	before, err := c.Number()
	if err != nil {
		return err
	}
	mark := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request},
			Data:   []byte{0, unix.NFNETLINK_V0, unix.NFNL_SUBSYS_NFTABLES >> 8, unix.NFNL_SUBSYS_NFTABLES & 0xff},
		}
	}
	batch := append([]netlink.Message{mark(unix.NFNL_MSG_BATCH_BEGIN)}, messages...)
	batch = append(batch, mark(unix.NFNL_MSG_BATCH_END))
	if _, err := c.queries.conn.SendMessages(batch); err != nil {
		return fmt.Errorf("send rules: %w", err)
	}
	for range messages {
		if _, rerr := c.queries.conn.Receive(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("write rules: %w", rerr))
		}
	}
	if err == nil {
		c.wrote(before)
	}
	return err
}
