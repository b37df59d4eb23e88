package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// marksPerTransaction bounds the elements of one message, whose length has 16
// bits.
const marksPerTransaction = 1000

// SetMarks is SetMark for many at once. Those that have their mark cost nothing.
func (h *Helpers) SetMarks(want map[lb.Key]uint32) error {
	todo := make([]lb.Key, 0, len(want))
	for k, mark := range want {
		if old, ok := h.marks[k]; !ok || old != mark {
			todo = append(todo, k)
		}
	}
	slices.SortFunc(todo, lb.Key.Compare)
	for some := range slices.Chunk(todo, marksPerTransaction) {
		if err := h.setMarks(some, want); err != nil {
			return err
		}
	}
	return nil
}

// setMarks sets marks in one transaction.
func (h *Helpers) setMarks(some []lb.Key, want map[lb.Key]uint32) error {
	var del, add [2][]nftables.SetElement
	for _, k := range some {
		i := familyIndex(k.VIP)
		if old, ok := h.marks[k]; ok {
			del[i] = append(del[i], markElement(k, old))
		}
		add[i] = append(add[i], markElement(k, want[k]))
	}
	for i, set := range h.mark {
		if len(add[i]) == 0 {
			continue
		}
		if set == nil {
			return errors.New("nft: these helpers have no marks")
		}
		if len(del[i]) > 0 {
			if err := h.sock.nft.SetDeleteElements(set, del[i]); err != nil {
				return err
			}
		}
		if err := h.sock.nft.SetAddElements(set, add[i]); err != nil {
			return err
		}
	}
	if err := driftOr(h.sock.commit()); err != nil {
		return explain(fmt.Sprintf("mark %d services", len(some)), err)
	}
	for _, k := range some {
		h.marks[k] = want[k]
	}
	return nil
}

// oldMarks is what versions before this one called the map of marks. It is a
// word of nft's language, so that a saved ruleset could not be loaded again.
func (h *Helpers) oldMarks(i int) *nftables.Set {
	old := *h.mark[i]
	old.Name = "mark"
	return &old
}

// takeOldMarks begins a transaction that removes the maps of marks that other
// versions made, and returns what is to be in their successors. What a map
// whose keys have another shape says is lost.
func (h *Helpers) takeOldMarks() (taken map[*nftables.Set][]nftables.SetElement, err error) {
	var old [len(families)]*nftables.Set
	taken = map[*nftables.Set][]nftables.SetElement{}
	for i, set := range h.mark {
		if set == nil {
			continue
		}
		have, err := h.hasTable(h.table[i])
		if err != nil || !have {
			return nil, err
		}
		there, err := h.sock.findSet(h.oldMarks(i))
		if err != nil {
			return nil, err
		}
		if there == nil {
			continue
		}
		old[i] = h.oldMarks(i)
		if !sameKeys(there, set) {
			h.cfg.Log.Warn("map of firewall marks has another layout; replacing it", slog.String("table", tableText(h.table[i])))
			continue
		}
		marks, err := h.readMarks(i, old[i])
		if err != nil {
			return nil, err
		}
		for k, mark := range marks {
			taken[set] = append(taken[set], markElement(k, mark))
		}
	}
	for i, set := range old {
		if set != nil {
			h.remakeMarkChains(h.sock.nft, i) // without rules, nothing uses the map
			h.sock.nft.DelSet(set)
		}
	}
	return taken, nil
}

// makeMarkMaps makes the maps of marks that are not there, and notes them. It says in what
// order of bytes their numbers are, which google/nftables does not, so that nft
// shows the numbers that they are, and loads those it has saved.
func (h *Helpers) makeMarkMaps(there map[*nftables.Set]bool) error {
	var made []*nftables.Set
	var batch []netlink.Message
	for i := range families {
		for _, set := range []*nftables.Set{h.mark[i], h.kept[i][0], h.kept[i][1]} {
			if set == nil || there[set] {
				continue
			}
			messages, err := newMap(&families[i], set)
			if err != nil {
				return fmt.Errorf("encode map %s: %w", set.Name, err)
			}
			made, batch = append(made, set), append(batch, messages...)
		}
	}
	if len(made) == 0 {
		return nil
	}
	if err := h.sock.sendBatch(batch...); err != nil {
		return explain("maps of marks", err)
	}
	for _, set := range made {
		there[set] = true
	}
	return nil
}

// newMap returns the messages that make a map of numbers of this host, and its table.
func newMap(f *family, set *nftables.Set) ([]netlink.Message, error) {
	table, err := nftMessage(f, unix.NFT_MSG_NEWTABLE, netlink.Create, []netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(set.Table.Name + "\x00")},
	})
	if err != nil {
		return nil, err
	}
	attrs, err := mapAttributes(set)
	if err != nil {
		return nil, err
	}
	made, err := nftMessage(f, unix.NFT_MSG_NEWSET, netlink.Create, attrs)
	return []netlink.Message{table, made}, err
}

// mapAttributes encodes a map whose values, and keys if they are no
// concatenation, are numbers of this host.
func mapAttributes(set *nftables.Set) ([]netlink.Attribute, error) {
	const native = 1 // nft's word for the order of bytes of this host
	number := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	desc, err := mapDescription(set)
	if err != nil {
		return nil, err
	}
	flags := uint32(unix.NFT_SET_MAP)
	note := userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_DATABYTEORDER, native)
	if set.Concatenation {
		flags |= nftables.NFT_SET_CONCAT
	} else {
		note = userdata.AppendUint32(note, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, native)
	}
	attrs := []netlink.Attribute{
		{Type: unix.NFTA_SET_TABLE, Data: []byte(set.Table.Name + "\x00")},
		{Type: unix.NFTA_SET_NAME, Data: []byte(set.Name + "\x00")},
		{Type: unix.NFTA_SET_KEY_TYPE, Data: number(set.KeyType.GetNFTMagic())},
		{Type: unix.NFTA_SET_KEY_LEN, Data: number(set.KeyType.Bytes)},
		{Type: unix.NFTA_SET_DATA_TYPE, Data: number(set.DataType.GetNFTMagic())},
		{Type: unix.NFTA_SET_DATA_LEN, Data: number(set.DataType.Bytes)},
		{Type: unix.NFTA_SET_ID, Data: number(set.ID)},
		{Type: unix.NLA_F_NESTED | unix.NFTA_SET_DESC, Data: desc},
		{Type: unix.NFTA_SET_USERDATA, Data: note},
	}
	if set.Dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	if set.HasTimeout {
		flags |= unix.NFT_SET_TIMEOUT
		timeout := binary.BigEndian.AppendUint64(nil, uint64(set.Timeout.Milliseconds()))
		attrs = append(attrs, netlink.Attribute{Type: unix.NFTA_SET_TIMEOUT, Data: timeout})
	}
	return append(attrs, netlink.Attribute{Type: unix.NFTA_SET_FLAGS, Data: number(flags)}), nil
}

// mapDescription encodes what bounds a map, and of what its keys are made.
func mapDescription(set *nftables.Set) ([]byte, error) {
	const fieldLength = 1 // NFTA_SET_FIELD_LEN
	number := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	var desc []netlink.Attribute
	if set.Size > 0 {
		desc = append(desc, netlink.Attribute{Type: unix.NFTA_SET_DESC_SIZE, Data: number(set.Size)})
	}
	if set.Concatenation {
		var parts []netlink.Attribute
		for _, part := range nftables.ConcatSetTypeElements(set.KeyType) {
			size, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: fieldLength, Data: number(part.Bytes)}})
			if err != nil {
				return nil, err
			}
			parts = append(parts, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: size})
		}
		concat, err := netlink.MarshalAttributes(parts)
		if err != nil {
			return nil, err
		}
		desc = append(desc, netlink.Attribute{Type: unix.NLA_F_NESTED | nftables.NFTA_SET_DESC_CONCAT, Data: concat})
	}
	return netlink.MarshalAttributes(desc)
}
