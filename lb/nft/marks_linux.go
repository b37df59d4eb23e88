package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// Marks returns the mark of each service for all ports that has one, as of the
// last ReadMarks and what was set since. The result is the caller's.
func (h *Helpers) Marks() map[lb.Key]uint32 { return maps.Clone(h.marks) }

// ReadMarks reads the mark maps back.
func (h *Helpers) ReadMarks() error {
	all := map[lb.Key]uint32{}
	for i := range h.mark {
		marks, err := h.readMarks(i, h.mark[i])
		if err != nil {
			return err
		}
		maps.Copy(all, marks)
	}
	h.marks = all
	return nil
}

// readMarks reads the mark map of one family; nil is none.
func (h *Helpers) readMarks(i int, set *nftables.Set) (map[lb.Key]uint32, error) {
	if set == nil {
		return nil, nil
	}
	elems, err := h.sock.nft.GetSetElements(set)
	if err != nil {
		return nil, explain("read marks back", err)
	}
	marks := make(map[lb.Key]uint32, len(elems))
	for _, e := range elems {
		k, _, err := parseKey(e.Key, i, true)
		if err != nil || len(e.Val) < 4 {
			return nil, fmt.Errorf("read marks back: element of %d and %d bytes", len(e.Key), len(e.Val))
		}
		marks[k] = binary.NativeEndian.Uint32(e.Val)
	}
	return marks, nil
}

// restoreMarks makes the mark maps as they should be.
func (h *Helpers) restoreMarks() error {
	for i, set := range h.mark {
		have, err := h.readMarks(i, set)
		if err != nil {
			return err
		}
		var del, add []nftables.SetElement
		for k, mark := range have {
			if want, ok := h.marks[k]; !ok || want != mark {
				del = append(del, markElement(k, mark))
			}
		}
		for k, mark := range h.marks {
			if got, ok := have[k]; familyIndex(k.VIP) == i && (!ok || got != mark) {
				add = append(add, markElement(k, mark))
			}
		}
		if len(del)+len(add) == 0 {
			continue
		}
		changes := func(elems []nftables.SetElement) map[*nftables.Set][]nftables.SetElement {
			return map[*nftables.Set][]nftables.SetElement{set: elems}
		}
		c := h.sock.nft
		err = errors.Join(eachChunk(changes(del), c.SetDeleteElements), eachChunk(changes(add), c.SetAddElements))
		if err != nil {
			return fmt.Errorf("encode marks: %w", err)
		}
		if err := h.sock.commit(); err != nil {
			return explain("write marks", err)
		}
	}
	return nil
}

// SetMark makes new packets to an address, of one protocol and to any port,
// carry a mark. To the same mark again, it does nothing.
func (h *Helpers) SetMark(k lb.Key, mark uint32) error {
	old, ok := h.marks[k]
	if ok && old == mark {
		return nil
	}
	set, err := h.markSet(k)
	if err != nil {
		return err
	}
	c := h.sock.nft
	if ok {
		if err := c.SetDeleteElements(set, []nftables.SetElement{markElement(k, old)}); err != nil {
			return err
		}
	}
	if err := c.SetAddElements(set, []nftables.SetElement{markElement(k, mark)}); err != nil {
		return err
	}
	if err := driftOr(h.sock.commit()); err != nil {
		return explain(fmt.Sprintf("mark %s", k), err)
	}
	h.marks[k] = mark
	return nil
}

// DelMark ends SetMark.
func (h *Helpers) DelMark(k lb.Key) error {
	old, ok := h.marks[k]
	if !ok {
		return nil
	}
	set, err := h.markSet(k)
	if err != nil {
		return err
	}
	if err := h.sock.nft.SetDeleteElements(set, []nftables.SetElement{markElement(k, old)}); err != nil {
		return err
	}
	if err := driftOr(h.sock.commit()); err != nil {
		return explain(fmt.Sprintf("unmark %s", k), err)
	}
	delete(h.marks, k)
	return nil
}

// MoveMark gives the mark of one key to another one, in one transaction. Without
// a mark to move, it does nothing.
func (h *Helpers) MoveMark(from, to lb.Key) error {
	mark, ok := h.marks[from]
	if !ok {
		return nil
	}
	set, err := h.markSet(to)
	if err != nil {
		return err
	}
	c := h.sock.nft
	del := []nftables.SetElement{markElement(from, mark)}
	if old, ok := h.marks[to]; ok {
		del = append(del, markElement(to, old))
	}
	err = errors.Join(c.SetDeleteElements(set, del), c.SetAddElements(set, []nftables.SetElement{markElement(to, mark)}))
	if err != nil {
		return err
	}
	if err := driftOr(h.sock.commit()); err != nil {
		return explain(fmt.Sprintf("move the mark of %s", from), err)
	}
	delete(h.marks, from)
	h.marks[to] = mark
	return nil
}

func (h *Helpers) markSet(k lb.Key) (*nftables.Set, error) {
	set := h.mark[familyIndex(k.VIP)]
	if set == nil {
		return nil, errors.New("nft: these helpers have no marks")
	}
	return set, nil
}

func markElement(k lb.Key, mark uint32) nftables.SetElement {
	return nftables.SetElement{Key: serviceKey(k), Val: binary.NativeEndian.AppendUint32(nil, mark)}
}

// driftOr names the errors that mean that the kernel does not hold what we wrote.
func driftOr(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: %w", lb.ErrDrift, err)
	}
	return err
}
