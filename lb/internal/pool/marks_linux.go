package pool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// marks are the firewall marks of services for all ports, and what gives them to packets
// and takes them off again.
type marks struct {
	*shared

	served    *served
	set       [2]*nftables.Set    // VIP . protocol to mark; nil: none are needed
	kept      [2][2]*nftables.Set // marks of others, and priorities, of packets on their way through IPVS
	byService map[lb.Key]uint32   // what is in set
}

func newMarks(common *shared, served *served, needed bool) *marks {
	m := &marks{shared: common, served: served, byService: map[lb.Key]uint32{}}
	for i := range nftconn.Families {
		if !needed {
			break
		}
		m.kept[i] = m.newKeptMaps(i)
		m.set[i] = &nftables.Set{
			Table: m.table[i], ID: uint32(3 + i), Name: "marks",
			KeyType:       nftables.MustConcatSetType(nftconn.Families[i].Addr, nftables.TypeInetProto),
			Concatenation: true, IsMap: true, DataType: nftables.TypeMark,
		}
	}
	return m
}

// Marks returns the mark of each service for all ports that has one, as of the
// last Setup and what was set since. The result is the caller's.
func (m *marks) Marks() map[lb.Key]uint32 { return maps.Clone(m.byService) }

// adopt takes the marks that the maps hold.
func (m *marks) adopt() error {
	all := map[lb.Key]uint32{}
	for i := range m.set {
		marks, err := m.read(i, m.set[i])
		if err != nil {
			return err
		}
		maps.Copy(all, marks)
	}
	m.byService = all
	return nil
}

// read reads the mark map of one family; nil is none.
func (m *marks) read(i int, set *nftables.Set) (map[lb.Key]uint32, error) {
	if set == nil {
		return nil, nil
	}
	elems, err := m.conn.Nftables.GetSetElements(set)
	if err != nil {
		return nil, nftconn.Explain("read marks back", err)
	}
	marks := make(map[lb.Key]uint32, len(elems))
	for _, e := range elems {
		k, _, err := nftconn.ParseKey(e.Key, i, true)
		if err != nil || len(e.Val) < 4 {
			return nil, fmt.Errorf("read marks back: element of %d and %d bytes", len(e.Key), len(e.Val))
		}
		marks[k] = binary.NativeEndian.Uint32(e.Val)
	}
	return marks, nil
}

// restore makes the mark maps as they should be.
func (m *marks) restore() error {
	for i, set := range m.set {
		have, err := m.read(i, set)
		if err != nil {
			return err
		}
		var del, add []nftables.SetElement
		for k, mark := range have {
			if want, ok := m.byService[k]; !ok || want != mark {
				del = append(del, markElement(k, mark))
			}
		}
		for k, mark := range m.byService {
			if got, ok := have[k]; nftconn.FamilyIndex(k.VIP) == i && (!ok || got != mark) {
				add = append(add, markElement(k, mark))
			}
		}
		if len(del)+len(add) == 0 {
			continue
		}
		changes := func(elems []nftables.SetElement) map[*nftables.Set][]nftables.SetElement {
			return map[*nftables.Set][]nftables.SetElement{set: elems}
		}
		c := m.conn.Nftables
		err = errors.Join(nftconn.EachChunk(changes(del), c.SetDeleteElements),
			nftconn.EachChunk(changes(add), c.SetAddElements))
		if err != nil {
			return fmt.Errorf("encode marks: %w", err)
		}
		if err := m.conn.Commit(); err != nil {
			return nftconn.Explain("write marks", err)
		}
	}
	return nil
}

// SetMark makes new packets to an address, of one protocol and to any port,
// carry a mark. To the same mark again, it does nothing.
func (m *marks) SetMark(k lb.Key, mark uint32) error {
	old, ok := m.byService[k]
	if ok && old == mark {
		return nil
	}
	set, err := m.markSet(k)
	if err != nil {
		return err
	}
	c := m.conn.Nftables
	if ok {
		if err := c.SetDeleteElements(set, []nftables.SetElement{markElement(k, old)}); err != nil {
			return err
		}
	}
	if err := c.SetAddElements(set, []nftables.SetElement{markElement(k, mark)}); err != nil {
		return err
	}
	if err := nftconn.AsDrift(m.conn.Commit()); err != nil {
		return nftconn.Explain(fmt.Sprintf("mark %s", k), err)
	}
	m.byService[k] = mark
	return nil
}

// DelMark ends SetMark.
func (m *marks) DelMark(k lb.Key) error {
	old, ok := m.byService[k]
	if !ok {
		return nil
	}
	set, err := m.markSet(k)
	if err != nil {
		return err
	}
	if err := m.conn.Nftables.SetDeleteElements(set, []nftables.SetElement{markElement(k, old)}); err != nil {
		return err
	}
	if err := nftconn.AsDrift(m.conn.Commit()); err != nil {
		return nftconn.Explain(fmt.Sprintf("unmark %s", k), err)
	}
	delete(m.byService, k)
	return nil
}

// MoveMark gives the mark of one key to another one, in one transaction. Without
// a mark to move, it does nothing.
func (m *marks) MoveMark(from, to lb.Key) error {
	mark, ok := m.byService[from]
	if !ok {
		return nil
	}
	set, err := m.markSet(to)
	if err != nil {
		return err
	}
	c := m.conn.Nftables
	del := []nftables.SetElement{markElement(from, mark)}
	if old, ok := m.byService[to]; ok {
		del = append(del, markElement(to, old))
	}
	err = errors.Join(c.SetDeleteElements(set, del), c.SetAddElements(set, []nftables.SetElement{markElement(to, mark)}))
	if err != nil {
		return err
	}
	if err := nftconn.AsDrift(m.conn.Commit()); err != nil {
		return nftconn.Explain(fmt.Sprintf("move the mark of %s", from), err)
	}
	delete(m.byService, from)
	m.byService[to] = mark
	return nil
}

func (m *marks) markSet(k lb.Key) (*nftables.Set, error) {
	set := m.set[nftconn.FamilyIndex(k.VIP)]
	if set == nil {
		return nil, errors.New("nft: there are no marks here")
	}
	return set, nil
}

func markElement(k lb.Key, mark uint32) nftables.SetElement {
	return nftables.SetElement{Key: nftconn.ServiceKey(k), Val: binary.NativeEndian.AppendUint32(nil, mark)}
}

// check compares the map of marks.
func (m *marks) check(i int) ([]lb.Finding, error) {
	if m.set[i] == nil {
		return nil, nil
	}
	have, err := m.read(i, m.set[i])
	if err != nil {
		return nil, err
	}
	var found []lb.Finding
	for k, want := range m.byService {
		if nftconn.FamilyIndex(k.VIP) != i {
			continue
		}
		got, there := have[k]
		delete(have, k)
		f := lb.Finding{
			Area: lb.AreaMark, Kind: lb.FindingChanged, What: "mark of " + k.String(), Found: markText(got),
			Want: markText(want),
		}
		switch {
		case !there:
			f.Kind, f.Found = lb.FindingMissing, ""
			found = append(found, f)
		case got != want:
			found = append(found, f)
		}
	}
	for k, got := range have {
		found = append(found, lb.Finding{
			Area: lb.AreaMark, Kind: lb.FindingExtra, What: "mark of " + k.String(),
			Found: markText(got),
		})
	}
	return found, nil
}

func markText(mark uint32) string { return fmt.Sprintf("%#x", mark) }
