package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// Marks returns the mark of each address that has one, as of the last ReadMarks
// and what was set since. The result is the caller's.
func (h *Helpers) Marks() map[netip.Addr]uint32 { return maps.Clone(h.marks) }

// ReadMarks reads the mark maps back.
func (h *Helpers) ReadMarks() error {
	all := map[netip.Addr]uint32{}
	for i := range h.mark {
		marks, err := h.readMarks(i)
		if err != nil {
			return err
		}
		maps.Copy(all, marks)
	}
	h.marks = all
	return nil
}

// readMarks reads the mark map of one family.
func (h *Helpers) readMarks(i int) (map[netip.Addr]uint32, error) {
	if h.mark[i] == nil {
		return nil, nil
	}
	elems, err := h.sock.nft.GetSetElements(h.mark[i])
	if err != nil {
		return nil, explain("read marks back", err)
	}
	marks := make(map[netip.Addr]uint32, len(elems))
	for _, e := range elems {
		a, ok := netip.AddrFromSlice(e.Key)
		if !ok || len(e.Val) < 4 {
			return nil, fmt.Errorf("read marks back: element of %d and %d bytes", len(e.Key), len(e.Val))
		}
		marks[a] = binary.NativeEndian.Uint32(e.Val)
	}
	return marks, nil
}

// restoreMarks makes the mark maps as they should be.
func (h *Helpers) restoreMarks() error {
	for i, set := range h.mark {
		have, err := h.readMarks(i)
		if err != nil {
			return err
		}
		var del, add []nftables.SetElement
		for a, mark := range have {
			if want, ok := h.marks[a]; !ok || want != mark {
				del = append(del, markElement(a, mark))
			}
		}
		for a, mark := range h.marks {
			if got, ok := have[a]; familyIndex(a) == i && (!ok || got != mark) {
				add = append(add, markElement(a, mark))
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

// SetMark makes new packets to an address carry a mark. To the same mark
// again, it does nothing.
func (h *Helpers) SetMark(a netip.Addr, mark uint32) error {
	old, ok := h.marks[a]
	if ok && old == mark {
		return nil
	}
	set, err := h.markSet(a)
	if err != nil {
		return err
	}
	c := h.sock.nft
	if ok {
		if err := c.SetDeleteElements(set, []nftables.SetElement{markElement(a, old)}); err != nil {
			return err
		}
	}
	if err := c.SetAddElements(set, []nftables.SetElement{markElement(a, mark)}); err != nil {
		return err
	}
	if err := driftOr(h.sock.commit()); err != nil {
		return explain(fmt.Sprintf("mark %s", a), err)
	}
	h.marks[a] = mark
	return nil
}

// DelMark ends SetMark.
func (h *Helpers) DelMark(a netip.Addr) error {
	old, ok := h.marks[a]
	if !ok {
		return nil
	}
	set, err := h.markSet(a)
	if err != nil {
		return err
	}
	if err := h.sock.nft.SetDeleteElements(set, []nftables.SetElement{markElement(a, old)}); err != nil {
		return err
	}
	if err := driftOr(h.sock.commit()); err != nil {
		return explain(fmt.Sprintf("unmark %s", a), err)
	}
	delete(h.marks, a)
	return nil
}

func (h *Helpers) markSet(a netip.Addr) (*nftables.Set, error) {
	set := h.mark[familyIndex(a)]
	if set == nil {
		return nil, errors.New("nft: these helpers have no marks")
	}
	return set, nil
}

func markElement(a netip.Addr, mark uint32) nftables.SetElement {
	return nftables.SetElement{Key: appendAddr(nil, a), Val: binary.NativeEndian.AppendUint32(nil, mark)}
}

// driftOr names the errors that mean that the kernel does not hold what we wrote.
func driftOr(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: %w", lb.ErrDrift, err)
	}
	return err
}
