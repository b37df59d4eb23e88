package nft

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"meshd/lb"
	"meshd/state"
)

// What IPVS serves comes to it, in the hooks input and output, after the chains
// that redirect what nobody serves. These sets keep it from them: services that
// have a backend to give. One that has none is refused by the guard, since IPVS
// itself could not: its errors would come from the VIP (addRules).
//
//	served     VIP . protocol . port
//	served_all VIP . protocol          services for all ports

// newServedSets makes the two sets of a family.
func (h *Helpers) newServedSets(i int) [2]*nftables.Set {
	f := &families[i]
	return [2]*nftables.Set{
		{
			Table: h.table[i], ID: uint32(5 + i), Name: "served", Concatenation: true,
			KeyType: nftables.MustConcatSetType(f.addr, nftables.TypeInetProto, nftables.TypeInetService),
		},
		{
			Table: h.table[i], ID: uint32(7 + i), Name: "served_all", Concatenation: true,
			KeyType: nftables.MustConcatSetType(f.addr, nftables.TypeInetProto),
		},
	}
}

// addServed lets through to IPVS what it serves.
func (h *Helpers) addServed(c *nftables.Conn, i int, chain *nftables.Chain) {
	f := &families[i]
	loads := [2][]expr.Any{f.loadKey(), f.loadWide()}
	for n, set := range h.served[i] {
		if set == nil {
			continue
		}
		c.AddRule(&nftables.Rule{Table: h.table[i], Chain: chain, Exprs: rules(loads[n], []expr.Any{
			inSet(set), &expr.Verdict{Kind: expr.VerdictReturn},
		})})
	}
}

// servedSet returns the set that a service belongs to.
func (h *Helpers) servedSet(k lb.Key) (*nftables.Set, error) {
	n := 0
	if k.AllPorts() {
		n = 1
	}
	set := h.served[familyIndex(k.VIP)][n]
	if set == nil {
		return nil, errors.New("nft: these helpers have no services of IPVS")
	}
	return set, nil
}

// Serve says which services have a backend from now on, and which have none any
// more. What is so already costs nothing.
func (h *Helpers) Serve(more, less []lb.Key) error {
	more = distinct(more, func(k lb.Key) bool { return !h.serves[k] })
	less = distinct(less, func(k lb.Key) bool { return h.serves[k] })
	if err := h.changeServed(less, h.sock.nft.SetDeleteElements); err != nil {
		return err
	}
	for _, k := range less {
		delete(h.serves, k)
	}
	if err := h.changeServed(more, h.sock.nft.SetAddElements); err != nil {
		return err
	}
	var refused []Connections
	for _, k := range more {
		h.serves[k] = true
		if k.Proto == state.UDP {
			refused = append(refused, Connections{Service: k, Backend: refusedFlow(k)})
		}
	}
	if len(refused) == 0 {
		return nil
	}
	if err := h.Cut(refused, nil); err != nil {
		h.cfg.Log.Warn("what was refused before may be refused until conntrack forgets it", slog.Any("err", err))
	}
	return nil
}

// distinct returns those of the keys that f wants, sorted, each once.
func distinct(keys []lb.Key, f func(lb.Key) bool) []lb.Key {
	var all []lb.Key
	for _, k := range keys {
		if f(k) {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, lb.Key.Compare)
	return slices.Compact(all)
}

// Served returns the services that are let through. The result is the caller's.
func (h *Helpers) Served() []lb.Key { return slices.SortedFunc(maps.Keys(h.serves), lb.Key.Compare) }

// changeServed adds or deletes elements, so many in a transaction as fit.
func (h *Helpers) changeServed(keys []lb.Key, change func(*nftables.Set, []nftables.SetElement) error) error {
	for some := range slices.Chunk(keys, marksPerTransaction) {
		elems := map[*nftables.Set][]nftables.SetElement{}
		for _, k := range some {
			set, err := h.servedSet(k)
			if err != nil {
				return err
			}
			elems[set] = append(elems[set], nftables.SetElement{Key: serviceKey(k)})
		}
		if err := eachChunk(elems, change); err != nil {
			return fmt.Errorf("encode services of IPVS: %w", err)
		}
		if err := driftOr(h.sock.commit()); err != nil {
			return explain(fmt.Sprintf("let %d services through to IPVS", len(some)), err)
		}
	}
	return nil
}

// readServed reads the sets back.
func (h *Helpers) readServed() (map[lb.Key]bool, error) {
	all := map[lb.Key]bool{}
	for i := range families {
		for n, set := range h.served[i] {
			if set == nil {
				continue
			}
			elems, err := h.sock.nft.GetSetElements(set)
			if err != nil {
				return nil, explain("read the services of IPVS back", err)
			}
			for _, e := range elems {
				k, _, err := parseKey(e.Key, i, n == 1)
				if err != nil {
					return nil, fmt.Errorf("read the services of IPVS back: element of %d bytes", len(e.Key))
				}
				all[k] = true
			}
		}
	}
	return all, nil
}

// restoreServed makes the sets as they should be.
func (h *Helpers) restoreServed() error {
	have, err := h.readServed()
	if err != nil {
		return err
	}
	want := h.serves
	h.serves = have
	var more, less []lb.Key
	for k := range want {
		more = append(more, k)
	}
	for k := range have {
		if !want[k] {
			less = append(less, k)
		}
	}
	return h.Serve(more, less)
}

// checkServed compares the sets with what was said.
func (h *Helpers) checkServed() ([]lb.Finding, error) {
	have, err := h.readServed()
	if err != nil {
		return nil, err
	}
	var found []lb.Finding
	for k := range h.serves {
		if !have[k] {
			found = append(found, lb.Finding{Area: lb.AreaSet, Kind: lb.FindingMissing, What: "service " + k.String() +
				" in the set of those that IPVS serves"})
		}
	}
	for k := range have {
		if !h.serves[k] {
			found = append(found, lb.Finding{Area: lb.AreaSet, Kind: lb.FindingExtra, What: "service " + k.String() +
				" in the set of those that IPVS serves"})
		}
	}
	return found, nil
}
