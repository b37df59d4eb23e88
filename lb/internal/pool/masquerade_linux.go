package pool

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb/nftconn"
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
func (g *guard) writeMasquerade(i int) error {
	f, chain, pool, tasks := &nftconn.Families[i], g.masq(i), g.pool[i], g.tasks[i]
	where := []netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(chain.Table.Name + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(chain.Name + "\x00")},
	}
	del, err := nftconn.Message(f, unix.NFT_MSG_DELRULE, 0, where)
	if err != nil {
		return err
	}
	batch := []netlink.Message{del}
	for _, then := range [][]expr.Any{recordTask(f, tasks), {&expr.Masq{}}} {
		exprs, err := toPoolExprs(f, pool, then)
		if err != nil {
			return fmt.Errorf("encode rule of chain %s: %w", chain.Name, err)
		}
		add, err := nftconn.Message(f, unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append,
			append(slices.Clip(where), netlink.Attribute{Type: unix.NFTA_RULE_EXPRESSIONS | unix.NLA_F_NESTED, Data: exprs}))
		if err != nil {
			return err
		}
		batch = append(batch, add)
	}
	return g.conn.SendBatch(batch...)
}

// toPoolExprs encodes what is done with packets of connections to a pool.
func toPoolExprs(f *nftconn.Family, pool *nftables.Set, then []expr.Any) ([]byte, error) {
	ct, err := ctExpr(f)
	if err != nil {
		return nil, err
	}
	all := []netlink.Attribute{{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: ct}}
	for _, e := range append([]expr.Any{nftconn.InSet(pool)}, then...) {
		data, err := expr.Marshal(f.Proto, e)
		if err != nil {
			return nil, err
		}
		all = append(all, netlink.Attribute{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: data})
	}
	return netlink.MarshalAttributes(all)
}

// ctExpr encodes "ct original ip daddr" into the first register.
func ctExpr(f *nftconn.Family) ([]byte, error) {
	key := uint32(ctDstIP)
	if f.Proto == unix.NFPROTO_IPV6 {
		key = ctDstIP6
	}
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_CT_KEY, Data: binary.BigEndian.AppendUint32(nil, key)},
		{Type: unix.NFTA_CT_DREG, Data: binary.BigEndian.AppendUint32(nil, nftconn.FirstRegister)},
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
