package pool

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/nftconn"
	"meshd/state"
)

// What IPVS serves comes to it, in the hooks input and output, after the chains
// that redirect what nobody serves. These sets keep it from them: services that
// have a backend to give. One that has none is refused by the guard, since IPVS
// itself could not: its errors would come from the VIP (addRules).
//
//	served     VIP . protocol . port
//	served_all VIP . protocol          services for all ports

// served says which services IPVS serves.
type served struct {
	*shared

	sets [2][2]*nftables.Set // by ports and for all ports; nil: none are needed
	has  map[lb.Key]bool     // what is in sets
}

func newServed(common *shared, needed bool) *served {
	s := &served{shared: common, has: map[lb.Key]bool{}}
	for i := range nftconn.Families {
		if needed {
			s.sets[i] = s.newSets(i)
		}
	}
	return s
}

// adopt takes the services that the sets hold.
func (s *served) adopt() (err error) {
	s.has, err = s.read()
	return err
}

// newSets makes the two sets of a family.
func (s *served) newSets(i int) [2]*nftables.Set {
	f := &nftconn.Families[i]
	return [2]*nftables.Set{
		{
			Table: s.table[i], ID: uint32(5 + i), Name: "served", Concatenation: true,
			KeyType: nftables.MustConcatSetType(f.Addr, nftables.TypeInetProto, nftables.TypeInetService),
		},
		{
			Table: s.table[i], ID: uint32(7 + i), Name: "served_all", Concatenation: true,
			KeyType: nftables.MustConcatSetType(f.Addr, nftables.TypeInetProto),
		},
	}
}

// addRules lets through to IPVS what it serves.
func (s *served) addRules(c *nftables.Conn, i int, chain *nftables.Chain) {
	f := &nftconn.Families[i]
	loads := [2][]expr.Any{f.LoadService(), f.LoadServiceAddress()}
	for n, set := range s.sets[i] {
		if set == nil {
			continue
		}
		c.AddRule(&nftables.Rule{Table: s.table[i], Chain: chain, Exprs: nftconn.Concat(loads[n], []expr.Any{
			nftconn.InSet(set), nftconn.Return(),
		})})
	}
}

// servedSet returns the set that a service belongs to.
func (s *served) setOf(k lb.Key) (*nftables.Set, error) {
	n := 0
	if k.AllPorts() {
		n = 1
	}
	set := s.sets[nftconn.FamilyIndex(k.VIP)][n]
	if set == nil {
		return nil, errors.New("nft: there are no services of IPVS here")
	}
	return set, nil
}

// Serve says which services have a backend from now on, and which have none any
// more. What is so already costs nothing.
func (s *served) Serve(more, less []lb.Key) error {
	more = distinct(more, func(k lb.Key) bool { return !s.has[k] })
	less = distinct(less, func(k lb.Key) bool { return s.has[k] })
	if err := s.change(less, s.conn.Nftables.SetDeleteElements); err != nil {
		return err
	}
	for _, k := range less {
		delete(s.has, k)
	}
	if err := s.change(more, s.conn.Nftables.SetAddElements); err != nil {
		return err
	}
	var refused []conntrack.Connections
	for _, k := range more {
		s.has[k] = true
		if k.Proto == state.UDP {
			refused = append(refused, conntrack.Connections{Service: k, Backend: RefusedFlow(k)})
		}
	}
	if len(refused) == 0 {
		return nil
	}
	if err := conntrack.Cut(s.flows, refused, nil); err != nil {
		s.cfg.Log.Warn("what was refused before may be refused until conntrack forgets it", slog.Any("error", err))
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
func (s *served) Served() []lb.Key { return slices.SortedFunc(maps.Keys(s.has), lb.Key.Compare) }

// change adds or deletes elements, so many in a transaction as fit.
func (s *served) change(keys []lb.Key, change func(*nftables.Set, []nftables.SetElement) error) error {
	for some := range slices.Chunk(keys, marksPerTransaction) {
		elems := map[*nftables.Set][]nftables.SetElement{}
		for _, k := range some {
			set, err := s.setOf(k)
			if err != nil {
				return err
			}
			elems[set] = append(elems[set], nftables.SetElement{Key: nftconn.ServiceKey(k)})
		}
		if err := nftconn.EachChunk(elems, change); err != nil {
			return fmt.Errorf("encode services of IPVS: %w", err)
		}
		if err := nftconn.AsDrift(s.conn.Commit()); err != nil {
			return nftconn.Explain(fmt.Sprintf("let %d services through to IPVS", len(some)), err)
		}
	}
	return nil
}

// read reads the sets back.
func (s *served) read() (map[lb.Key]bool, error) {
	all := map[lb.Key]bool{}
	for i := range nftconn.Families {
		for n, set := range s.sets[i] {
			if set == nil {
				continue
			}
			elems, err := s.conn.Nftables.GetSetElements(set)
			if err != nil {
				return nil, nftconn.Explain("read the services of IPVS back", err)
			}
			for _, e := range elems {
				k, _, err := nftconn.ParseKey(e.Key, i, n == 1)
				if err != nil {
					return nil, fmt.Errorf("read the services of IPVS back: element of %d bytes", len(e.Key))
				}
				all[k] = true
			}
		}
	}
	return all, nil
}

// restore makes the sets as they should be.
func (s *served) restore() error {
	have, err := s.read()
	if err != nil {
		return err
	}
	want := s.has
	s.has = have
	var more, less []lb.Key
	for k := range want {
		more = append(more, k)
	}
	for k := range have {
		if !want[k] {
			less = append(less, k)
		}
	}
	return s.Serve(more, less)
}

// check compares the sets with what was said.
func (s *served) check() ([]lb.Finding, error) {
	have, err := s.read()
	if err != nil {
		return nil, err
	}
	var found []lb.Finding
	for k := range s.has {
		if !have[k] {
			found = append(found, lb.Finding{Area: lb.AreaSet, Kind: lb.FindingMissing, What: "service " + k.String() +
				" in the set of those that IPVS serves"})
		}
	}
	for k := range have {
		if !s.has[k] {
			found = append(found, lb.Finding{Area: lb.AreaSet, Kind: lb.FindingExtra, What: "service " + k.String() +
				" in the set of those that IPVS serves"})
		}
	}
	return found, nil
}
