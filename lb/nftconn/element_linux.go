package nftconn

import (
	"bytes"
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Element is an element of a set or map as the kernel tells it. The slices are
// valid until the function that was given the element returns.
type Element struct {
	Key, Value []byte // value is empty in sets
	Chain      []byte // where a verdict goes
	Comment    []byte
	Packets    uint64 // of the element's counter
}

// EachElement calls f with every element of a set.
func (c *Conn) EachElement(set *nftables.Set, f func(*Element) error) error {
	attrs := []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(set.Table.Name + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set.Name + "\x00")},
	}
	return c.queries.ask(SubsystemNftables|unix.NFT_MSG_GETSETELEM, byte(set.Table.Family), netlink.Dump, attrs,
		func(msg []byte) error { return decodeElements(msg, f) })
}

// decodeElements calls f with the elements in one message.
func decodeElements(msg []byte, f func(*Element) error) error {
	return EachAttribute(msg, func(kind uint16, list []byte) error {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return EachAttribute(list, func(_ uint16, raw []byte) error {
			var e Element
			if err := e.decode(raw); err != nil {
				return err
			}
			return f(&e)
		})
	})
}

func (e *Element) decode(raw []byte) error {
	return EachAttribute(raw, func(kind uint16, data []byte) error {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			return EachAttribute(data, func(kind uint16, data []byte) error {
				if kind == unix.NFTA_DATA_VALUE {
					e.Key = data
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_DATA:
			return EachAttribute(data, e.decodeData)
		case unix.NFTA_SET_ELEM_EXPR:
			return EachAttribute(data, e.decodeExpr)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.decodeComment(data)
		}
		return nil
	})
}

func (e *Element) decodeData(kind uint16, data []byte) error {
	switch kind {
	case unix.NFTA_DATA_VALUE:
		e.Value = data
	case unix.NFTA_DATA_VERDICT:
		return EachAttribute(data, func(kind uint16, data []byte) error {
			if kind == unix.NFTA_VERDICT_CHAIN {
				e.Chain = bytes.TrimRight(data, "\x00")
			}
			return nil
		})
	}
	return nil
}

// decodeExpr looks for the counter, which is the only expression of our elements.
func (e *Element) decodeExpr(kind uint16, data []byte) error {
	if kind != unix.NFTA_EXPR_DATA {
		return nil
	}
	return EachAttribute(data, func(kind uint16, data []byte) error {
		if kind == unix.NFTA_COUNTER_PACKETS && len(data) == 8 {
			e.Packets = binary.BigEndian.Uint64(data)
		}
		return nil
	})
}

// decodeComment looks for nft's comment, which ends with a zero byte, in a list
// of fields with one byte for the type and one for the length.
func (e *Element) decodeComment(data []byte) {
	const comment = 0 // NFTNL_UDATA_SET_ELEM_COMMENT
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		field := data[2 : 2+int(data[1])]
		if data[0] == comment {
			e.Comment = bytes.TrimRight(field, "\x00")
		}
		data = data[2+len(field):]
	}
}
