package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// marksPerTransaction bounds the elements of one message, whose length has 16
// bits.
const marksPerTransaction = 1000

// SetMarks is SetMark for many addresses at once. Addresses that have their
// mark cost nothing.
func (h *Helpers) SetMarks(want map[netip.Addr]uint32) error {
	todo := make([]netip.Addr, 0, len(want))
	for a, mark := range want {
		if old, ok := h.marks[a]; !ok || old != mark {
			todo = append(todo, a)
		}
	}
	slices.SortFunc(todo, netip.Addr.Compare)
	for some := range slices.Chunk(todo, marksPerTransaction) {
		if err := h.setMarks(some, want); err != nil {
			return err
		}
	}
	return nil
}

// setMarks sets marks in one transaction.
func (h *Helpers) setMarks(some []netip.Addr, want map[netip.Addr]uint32) error {
	var del, add [2][]nftables.SetElement
	for _, a := range some {
		i := familyIndex(a)
		if old, ok := h.marks[a]; ok {
			del[i] = append(del[i], markElement(a, old))
		}
		add[i] = append(add[i], markElement(a, want[a]))
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
		return explain(fmt.Sprintf("mark %d addresses", len(some)), err)
	}
	for _, a := range some {
		h.marks[a] = want[a]
	}
	return nil
}
