package nft

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// Names of our two tables (L1: everything in them is ours, nothing else is).
const (
	helperTable  = "meshd"
	serviceTable = "meshd_nat"
)

// Helpers are the rules beside a load balancer: sysctls, pools, their local
// routes, guard, masquerade and, for IPVS, marks (L2, L3). Both drivers own
// one. It is used by one goroutine at a time.
type Helpers struct {
	cfg    Config
	sock   *sockets
	table  [2]*nftables.Table  // by family, like what follows
	pool   [2]*nftables.Set    // interval sets of prefixes
	tasks  [2]*nftables.Set    // addresses that connections to VIPs were led to
	mark   [2]*nftables.Set    // VIP . protocol to mark; nil without marks
	book   [2]ruleBook         // the rules as Setup made them
	served [2][2]*nftables.Set // what IPVS serves, by ports and for all ports; nil without marks
	kept   [2][2]*nftables.Set // marks of others, and priorities, of packets on their way through IPVS; nil without marks
	pools  map[netip.Prefix]lb.Pool
	marks  map[lb.Key]uint32
	serves map[lb.Key]bool // what is in served
	ready  bool            // Setup was done: pools and marks say what should be there
}

// NewHelpers opens the sockets. With marks, new packets to an address and of a
// protocol in the mark map get the mark just before IPVS, for its services for
// all ports.
func NewHelpers(cfg Config, marks bool) (*Helpers, error) {
	if cfg.Log == nil {
		return nil, errors.New("nft: Log: missing; pass a slog.Logger")
	}
	sock, err := openSockets(&cfg)
	if err != nil {
		return nil, err
	}
	h := &Helpers{
		cfg: cfg, sock: sock, pools: map[netip.Prefix]lb.Pool{}, marks: map[lb.Key]uint32{},
		serves: map[lb.Key]bool{},
	}
	for i := range families {
		f := &families[i]
		h.table[i] = &nftables.Table{Name: helperTable, Family: nftables.TableFamily(f.nfproto)}
		h.book[i] = ruleBook{family: f.nfproto, table: helperTable, name: familyName(i) + " " + helperTable}
		h.pool[i] = &nftables.Set{Table: h.table[i], ID: uint32(1 + i), Name: "pool", KeyType: f.addr, Interval: true}
		h.tasks[i] = h.newTaskSet(i)
		if marks {
			h.served[i] = h.newServedSets(i)
			h.kept[i] = h.newKeptMaps(i)
			h.mark[i] = &nftables.Set{
				Table: h.table[i], ID: uint32(3 + i), Name: "marks",
				KeyType:       nftables.MustConcatSetType(f.addr, nftables.TypeInetProto),
				Concatenation: true, IsMap: true, DataType: nftables.TypeMark,
			}
		}
	}
	return h, nil
}

// Close releases the sockets; the rules stay.
func (h *Helpers) Close() error { return h.sock.close() }

// Pools returns the pools that are set. The result is the caller's.
func (h *Helpers) Pools() map[netip.Prefix]lb.Pool { return maps.Clone(h.pools) }

// Owns reports whether an address lies in one of the pools.
func (h *Helpers) Owns(a netip.Addr) bool {
	for p := range h.pools {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Setup makes the sysctls and the table. What is there already is adopted:
// the sets keep their elements, and the rules are replaced in one transaction.
// A map of marks that another version made is replaced in that transaction; what
// it holds is kept, if its keys are of this version's shape.
func (h *Helpers) Setup() error {
	if err := h.forward4(); err != nil {
		return err
	}
	there, err := h.sets()
	if err != nil {
		return err
	}
	if err := h.makeMarkMaps(there); err != nil {
		return err
	}
	taken, err := h.takeOldMarks()
	if err != nil {
		return err
	}
	if err := errors.Join(h.addTables(there), eachChunk(taken, h.sock.nft.SetAddElements)); err != nil {
		return err
	}
	if err := h.sock.commit(); err != nil {
		return explain("make table "+helperTable, err)
	}
	for i := range families {
		if err := h.sock.writeMasquerade(&families[i], h.masq(i), h.pool[i], h.tasks[i]); err != nil {
			return explain("masquerade rule", err)
		}
		chains := []string{"guard", "refuse_prerouting", "refuse_output", "masq"}
		if h.mark[i] != nil {
			chains = append(append(chains, markChainNames()...), resetChainNames()...)
		}
		if err := h.book[i].read(h.sock, chains...); err != nil {
			return err
		}
	}
	if !h.ready {
		if err := h.adopt(); err != nil {
			return err
		}
		h.ready = true
		return nil
	}
	return h.restore()
}

// remakeChain creates a chain, or takes the rules out of the one that is there,
// as part of the open transaction.
func remakeChain(c *nftables.Conn, chain *nftables.Chain) *nftables.Chain {
	c.AddChain(chain)
	c.FlushChain(chain)
	return chain
}

// sets returns which of the sets are there already. Those that nft has loaded
// again lack a flag that google/nftables gives, and newer kernels refuse to take
// one for the other.
func (h *Helpers) sets() (there map[*nftables.Set]bool, err error) {
	there = map[*nftables.Set]bool{}
	for i := range families {
		have, err := h.hasTable(h.table[i])
		if err != nil {
			return nil, err
		}
		if !have {
			continue
		}
		all, err := h.sock.nft.GetSets(h.table[i])
		if err != nil {
			return nil, explain("list sets", err)
		}
		for _, set := range h.setsOf(i) {
			there[set] = slices.ContainsFunc(all, func(o *nftables.Set) bool { return o.Name == set.Name && sameKeys(o, set) })
		}
	}
	return there, nil
}

// setsOf returns the sets of a family.
func (h *Helpers) setsOf(i int) []*nftables.Set {
	return slices.DeleteFunc(append([]*nftables.Set{h.pool[i], h.tasks[i]}, h.setsOfIPVS(i)...),
		func(s *nftables.Set) bool { return s == nil })
}

// setsOfIPVS returns the sets of a family that only IPVS needs; nil without marks.
func (h *Helpers) setsOfIPVS(i int) []*nftables.Set {
	return []*nftables.Set{h.mark[i], h.served[i][0], h.served[i][1], h.kept[i][0], h.kept[i][1]}
}

// addTables queues tables, sets that are not there, and rules but for the
// masquerade.
func (h *Helpers) addTables(there map[*nftables.Set]bool) error {
	c := h.sock.nft
	for i := range families {
		c.AddTable(h.table[i])
		for _, set := range h.setsOf(i) {
			if there[set] {
				continue
			}
			if err := c.AddSet(set, nil); err != nil {
				return fmt.Errorf("set %s: %w", set.Name, err)
			}
		}
		h.addRules(c, i)
		if h.mark[i] != nil {
			h.addMarkRules(c, i)
		}
	}
	return nil
}

// ProbeHelpers reports whether the kernel has what helpers need, without
// leaving anything behind. The error is as of lb.Driver.Probe.
func ProbeHelpers(cfg Config) error {
	h, err := NewHelpers(cfg, true)
	if err != nil {
		return err
	}
	defer h.Close()
	for i := range h.table {
		h.table[i].Name = "meshd_probe"
	}
	if err := h.addTables(nil); err != nil {
		return err
	}
	for i := range families {
		h.sock.nft.AddRule(&nftables.Rule{Table: h.table[i], Chain: h.masq(i), Exprs: []expr.Any{&expr.Masq{}}})
		h.sock.nft.DelTable(h.table[i])
	}
	err = h.sock.nft.Flush()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: kernel has no nf_tables nat with masquerade, redirect, reject, fib and hash (%w); load "+
			"nft_chain_nat, nft_masq, nft_redir, nft_reject_ipv4, nft_reject_ipv6, nft_fib_ipv4, nft_fib_ipv6, nft_hash",
			lb.ErrUnsupported, err)
	}
	return explain("probe nftables", err)
}

// adopt reads the pools that a previous run left: those with a way of ours. A
// prefix that is in the set only will be set again or forgotten.
func (h *Helpers) adopt() error {
	ways, err := h.ways()
	if err != nil {
		return err
	}
	h.pools = map[netip.Prefix]lb.Pool{}
	for prefix, w := range ways {
		h.pools[prefix] = lb.Pool{Prefix: prefix, Src: w.src}
	}
	if err := h.ReadMarks(); err != nil {
		return err
	}
	if h.serves, err = h.readServed(); err != nil {
		return err
	}
	if err := h.writePools(h.pools); err != nil {
		return err
	}
	return h.repairWays(ways)
}

// restore makes pools and marks as they should be, after somebody else has
// changed them. Pools that came meanwhile are adopted: what is not wanted of
// them will be deleted.
func (h *Helpers) restore() error {
	if err := h.writePools(h.pools); err != nil {
		return err
	}
	if err := errors.Join(h.restoreMarks(), h.restoreServed()); err != nil {
		return err
	}
	ways, err := h.ways()
	if err != nil {
		return err
	}
	for _, p := range h.pools {
		if err := h.forward(p); err != nil {
			return err
		}
	}
	for prefix, w := range ways {
		if _, known := h.pools[prefix]; !known {
			h.pools[prefix] = lb.Pool{Prefix: prefix, Src: w.src}
		}
	}
	return h.repairWays(ways)
}

// SetPool makes a prefix ours: guard and masquerade first, then the way to it,
// with the pool's source address. What fails is undone.
func (h *Helpers) SetPool(p lb.Pool) error {
	if err := h.hasIPv6(p.Prefix); err != nil {
		return err
	}
	next := h.Pools()
	next[p.Prefix] = p
	if err := h.forward(p); err != nil {
		return err
	}
	if err := h.writePools(next); err != nil {
		return err
	}
	_, known := h.pools[p.Prefix]
	if err := h.setWay(p); err != nil {
		if !known {
			err = errors.Join(err, h.delWay(p.Prefix))
		}
		return errors.Join(err, h.writePools(h.pools))
	}
	if !known {
		h.forgetEarly(p.Prefix)
	}
	h.pools = next
	return nil
}

// DelPool removes what SetPool made.
func (h *Helpers) DelPool(prefix netip.Prefix) error {
	next := h.Pools()
	delete(next, prefix)
	if err := h.delWay(prefix); err != nil {
		return err
	}
	if err := h.writePools(next); err != nil {
		return err
	}
	h.pools = next
	return nil
}

// writePools replaces the elements of the pool sets in one transaction.
func (h *Helpers) writePools(pools map[netip.Prefix]lb.Pool) error {
	c := h.sock.nft
	for i, set := range h.pool {
		c.FlushSet(set)
		var elems []nftables.SetElement
		for _, p := range outermost(pools) {
			if familyIndex(p.Addr()) != i {
				continue
			}
			elems = append(elems, poolElements(p)...)
		}
		if len(elems) == 0 {
			continue
		}
		if err := c.SetAddElements(set, elems); err != nil {
			return fmt.Errorf("set %s: %w", set.Name, err)
		}
	}
	return explain("write pools", h.sock.commit())
}

// poolElements returns the interval of a prefix.
func poolElements(p netip.Prefix) []nftables.SetElement {
	elems := []nftables.SetElement{{Key: p.Addr().AsSlice()}}
	if end := lastAddr(p).Next(); end.IsValid() {
		elems = append(elems, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return elems
}

// outermost returns the prefixes that lie in no other, sorted.
func outermost(pools map[netip.Prefix]lb.Pool) []netip.Prefix {
	all := slices.SortedFunc(maps.Keys(pools), func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	out := all[:0]
	for _, p := range all {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

func lastAddr(p netip.Prefix) netip.Addr {
	raw := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

func hasChains(chains []*nftables.Chain, table string, names ...string) bool {
	missing := len(names)
	for _, c := range chains {
		if c.Table.Name == table && slices.Contains(names, c.Name) {
			missing--
		}
	}
	return missing == 0
}
