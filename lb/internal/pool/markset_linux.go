package pool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// marksPerTransaction bounds the elements of one message, whose length has 16
// bits.
const marksPerTransaction = 1000

// SetMarks is SetMark for many at once. Those that have their mark cost nothing.
func (m *marks) SetMarks(want map[lb.Key]uint32) error {
	todo := make([]lb.Key, 0, len(want))
	for k, mark := range want {
		if old, ok := m.byService[k]; !ok || old != mark {
			todo = append(todo, k)
		}
	}
	slices.SortFunc(todo, lb.Key.Compare)
	for some := range slices.Chunk(todo, marksPerTransaction) {
		if err := m.setMarks(some, want); err != nil {
			return err
		}
	}
	return nil
}

// setMarks sets marks in one transaction.
func (m *marks) setMarks(some []lb.Key, want map[lb.Key]uint32) error {
	var del, add [2][]nftables.SetElement
	for _, k := range some {
		i := nftconn.FamilyIndex(k.VIP)
		if old, ok := m.byService[k]; ok {
			del[i] = append(del[i], markElement(k, old))
		}
		add[i] = append(add[i], markElement(k, want[k]))
	}
	for i, set := range m.set {
		if len(add[i]) == 0 {
			continue
		}
		if set == nil {
			return errors.New("nft: there are no marks here")
		}
		if len(del[i]) > 0 {
			if err := m.conn.Nftables.SetDeleteElements(set, del[i]); err != nil {
				return err
			}
		}
		if err := m.conn.Nftables.SetAddElements(set, add[i]); err != nil {
			return err
		}
	}
	if err := nftconn.AsDrift(m.conn.Commit()); err != nil {
		return nftconn.Explain(fmt.Sprintf("mark %d services", len(some)), err)
	}
	for _, k := range some {
		m.byService[k] = want[k]
	}
	return nil
}

// old is what versions before this one called the map of marks. It is a
// word of nft's language, so that a saved ruleset could not be loaded again.
func (m *marks) old(i int) *nftables.Set {
	old := *m.set[i]
	old.Name = "mark"
	return &old
}

// takeOld begins a transaction that removes the maps of marks that other
// versions made, and returns what is to be in their successors. What a map
// whose keys have another shape says is lost.
func (m *marks) takeOld() (taken map[*nftables.Set][]nftables.SetElement, err error) {
	var old [2]*nftables.Set
	taken = map[*nftables.Set][]nftables.SetElement{}
	for i, set := range m.set {
		if set == nil {
			continue
		}
		have, err := m.conn.HasTable(m.table[i])
		if err != nil || !have {
			return nil, err
		}
		there, err := m.conn.FindSet(m.old(i))
		if err != nil {
			return nil, err
		}
		if there == nil {
			continue
		}
		old[i] = m.old(i)
		if !nftconn.SameKeys(there, set) {
			m.cfg.Log.Warn("map of firewall marks has another layout; replacing it",
				slog.String("table", nftconn.TableText(m.table[i])))
			continue
		}
		marks, err := m.read(i, old[i])
		if err != nil {
			return nil, err
		}
		for k, mark := range marks {
			taken[set] = append(taken[set], markElement(k, mark))
		}
	}
	for i, set := range old {
		if set != nil {
			m.remakeChains(m.conn.Nftables, i) // without rules, nothing uses the map
			m.conn.Nftables.DelSet(set)
		}
	}
	return taken, nil
}

// makeMaps makes the maps of marks that are not there, and records them. It says in what
// order of bytes their numbers are, which google/nftables does not, so that nft
// shows the numbers that they are, and loads those it has saved.
func (m *marks) makeMaps(there map[*nftables.Set]bool) error {
	var made []*nftables.Set
	var batch []netlink.Message
	for i := range nftconn.Families {
		for _, set := range []*nftables.Set{m.set[i], m.kept[i][0], m.kept[i][1]} {
			if set == nil || there[set] {
				continue
			}
			messages, err := newMap(&nftconn.Families[i], set)
			if err != nil {
				return fmt.Errorf("encode map %s: %w", set.Name, err)
			}
			made, batch = append(made, set), append(batch, messages...)
		}
	}
	if len(made) == 0 {
		return nil
	}
	if err := m.conn.SendBatch(batch...); err != nil {
		return nftconn.Explain("maps of marks", err)
	}
	for _, set := range made {
		there[set] = true
	}
	return nil
}

// newMap returns the messages that make a map of numbers of this host, and its table.
func newMap(f *nftconn.Family, set *nftables.Set) ([]netlink.Message, error) {
	table, err := nftconn.Message(f, unix.NFT_MSG_NEWTABLE, netlink.Create, []netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(set.Table.Name + "\x00")},
	})
	if err != nil {
		return nil, err
	}
	attrs, err := mapAttributes(set)
	if err != nil {
		return nil, err
	}
	made, err := nftconn.Message(f, unix.NFT_MSG_NEWSET, netlink.Create, attrs)
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
	comment := userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_DATABYTEORDER, native)
	if set.Concatenation {
		flags |= nftables.NFT_SET_CONCAT
	} else {
		comment = userdata.AppendUint32(comment, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, native)
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
		{Type: unix.NFTA_SET_USERDATA, Data: comment},
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

// discover reads the mark map of one family, also one of another version,
// if there is one: without IPVS there is none. What one of another shape says is
// not known.
func (m *marks) discover(i int) (map[lb.Key]uint32, error) {
	if m.set[i] == nil {
		return nil, nil
	}
	all := map[lb.Key]uint32{}
	for _, set := range []*nftables.Set{m.old(i), m.set[i]} {
		there, err := m.conn.FindSet(set)
		if err != nil {
			return nil, err
		}
		if there == nil || !nftconn.SameKeys(there, set) {
			continue
		}
		marks, err := m.read(i, set)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, marks)
	}
	return all, nil
}
