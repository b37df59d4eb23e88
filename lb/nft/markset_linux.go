package nft

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/nftables"

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

// dropOldMarks begins a transaction that replaces the mark maps whose keys have
// another version's shape: old kernels would take the new ones for the same.
func (h *Helpers) dropOldMarks() error {
	var old [len(families)]bool
	for i, set := range h.mark {
		if set == nil {
			continue
		}
		have, err := h.hasTable(h.table[i])
		if err != nil {
			return err
		}
		if !have {
			continue
		}
		there, err := h.sock.findSet(set)
		if err != nil {
			return err
		}
		old[i] = there != nil && !sameKeys(there, set)
	}
	for i, set := range h.mark {
		if !old[i] {
			continue
		}
		h.cfg.Log.Warn("map of firewall marks has another layout; replacing it", slog.String("table", tableText(h.table[i])))
		h.remakeMarkChains(h.sock.nft, i) // without rules, nothing uses the map
		h.sock.nft.DelSet(set)
	}
	return nil
}
