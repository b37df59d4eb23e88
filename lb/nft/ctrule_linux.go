package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// google/nftables writes "ct original daddr" only in a form that makes the nft
// tool abort when it lists a set lookup after it. The masquerade rule is
// therefore written here, in the form that nft itself uses.

// Keys of the ct expression that unix does not name.
const (
	ctDstIP    = 0x14 // NFT_CT_DST_IP
	ctDstIP6   = 0x16 // NFT_CT_DST_IP6
	ctOriginal = 0    // direction from the client to the VIP
)

// writeMasquerade makes the chain hold two rules, in one transaction:
//
//	ct original ip daddr @pool update @tasks { ip daddr timeout 30d }
//	ct original ip daddr @pool masquerade
//
// They are two because the first ends where it is when its set is full.
func (s *sockets) writeMasquerade(f *family, chain *nftables.Chain, pool, tasks *nftables.Set) error {
	where := []netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(chain.Table.Name + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(chain.Name + "\x00")},
	}
	del, err := nftMessage(f, unix.NFT_MSG_DELRULE, 0, where)
	if err != nil {
		return err
	}
	batch := []netlink.Message{del}
	for _, then := range [][]expr.Any{noteTask(f, tasks), {&expr.Masq{}}} {
		exprs, err := toPoolExprs(f, pool, then)
		if err != nil {
			return fmt.Errorf("encode rule of chain %s: %w", chain.Name, err)
		}
		add, err := nftMessage(f, unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append,
			append(slices.Clip(where), netlink.Attribute{Type: unix.NFTA_RULE_EXPRESSIONS | unix.NLA_F_NESTED, Data: exprs}))
		if err != nil {
			return err
		}
		batch = append(batch, add)
	}
	return s.sendBatch(batch...)
}

// toPoolExprs encodes what is done with packets of connections to a pool.
func toPoolExprs(f *family, pool *nftables.Set, then []expr.Any) ([]byte, error) {
	ct, err := ctExpr(f)
	if err != nil {
		return nil, err
	}
	all := []netlink.Attribute{{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: ct}}
	for _, e := range append([]expr.Any{inSet(pool)}, then...) {
		data, err := expr.Marshal(f.nfproto, e)
		if err != nil {
			return nil, err
		}
		all = append(all, netlink.Attribute{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: data})
	}
	return netlink.MarshalAttributes(all)
}

// ctExpr encodes "ct original ip daddr" into the first register.
func ctExpr(f *family) ([]byte, error) {
	key := uint32(ctDstIP)
	if f.nfproto == unix.NFPROTO_IPV6 {
		key = ctDstIP6
	}
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_CT_KEY, Data: binary.BigEndian.AppendUint32(nil, key)},
		{Type: unix.NFTA_CT_DREG, Data: binary.BigEndian.AppendUint32(nil, firstReg)},
		{Type: unix.NFTA_CT_DIRECTION, Data: []byte{ctOriginal}},
	})
	if err != nil {
		return nil, err
	}
	return netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: []byte("ct\x00")},
		{Type: unix.NFTA_EXPR_DATA | unix.NLA_F_NESTED, Data: data},
	})
}

// nftMessage encodes a message to nf_tables about one family.
func nftMessage(f *family, kind uint16, flags netlink.HeaderFlags, attrs []netlink.Attribute) (netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return netlink.Message{}, fmt.Errorf("encode message: %w", err)
	}
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | netlink.Acknowledge | flags,
		},
		Data: append([]byte{f.nfproto, unix.NFNETLINK_V0, 0, 0}, data...),
	}, nil
}

// sendBatch sends messages as one transaction.
func (s *sockets) sendBatch(messages ...netlink.Message) error {
	before, err := s.generation()
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
	if _, err := s.queries.conn.SendMessages(batch); err != nil {
		return fmt.Errorf("send rules: %w", err)
	}
	for range messages {
		if _, rerr := s.queries.conn.Receive(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("write rules: %w", rerr))
		}
	}
	if err == nil {
		s.wrote(before)
	}
	return err
}
