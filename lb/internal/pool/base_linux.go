package pool

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/nftconn"
)

// tableName is that of our two tables, one in each family (L1: everything in them is
// ours, nothing else is).
const tableName = "meshd"

// shared is what the parts of a Base have in common.
type shared struct {
	cfg   Config
	conn  *nftconn.Conn
	flows *conntrack.Kernel
	table [2]*nftables.Table // by family, like all arrays of two here
}

// Base is pools with their routes, guard and masquerade. A driver owns one.
type Base struct {
	*shared

	// Its parts. Those of IPVS have no sets without marks.
	guard  *guard
	routes *routes
	marks  *marks
	served *served

	book  [2]nftconn.RuleBook // the rules as Setup made them
	pools map[netip.Prefix]lb.Pool
	ready bool // Setup was done: pools and marks say what should be there
}

// Marked is a Base with what IPVS needs beside it: marks of services for all ports,
// which packets get just before IPVS, and the sets of what IPVS serves.
type Marked struct {
	*Base
	*marks
	*served
}

// New opens the sockets.
func New(cfg Config) (*Base, error) { return newBase(cfg, false) }

// NewMarked is New for IPVS.
func NewMarked(cfg Config) (*Marked, error) {
	b, err := newBase(cfg, true)
	if err != nil {
		return nil, err
	}
	return &Marked{Base: b, marks: b.marks, served: b.served}, nil
}

func newBase(cfg Config, marked bool) (*Base, error) {
	if cfg.Log == nil {
		return nil, errors.New("nft: Log: missing; pass a slog.Logger")
	}
	conn, err := nftconn.Open(nftconn.Config{NetNS: cfg.NetNS, Listener: cfg.Listener})
	if err != nil {
		return nil, err
	}
	common := &shared{cfg: cfg, conn: conn, flows: conntrack.New(conn)}
	b := &Base{shared: common, routes: &routes{shared: common}, pools: map[netip.Prefix]lb.Pool{}}
	for i := range nftconn.Families {
		family := nftconn.Families[i].Proto
		b.table[i] = &nftables.Table{Name: tableName, Family: nftables.TableFamily(family)}
		b.book[i] = nftconn.RuleBook{Family: family, Table: tableName, Name: nftconn.FamilyName(i) + " " + tableName}
	}
	b.served = newServed(common, marked)
	b.guard = newGuard(common, b.served)
	b.marks = newMarks(common, b.served, marked)
	return b, nil
}

// Close releases the sockets; the rules stay.
func (b *Base) Close() error { return b.conn.Close() }

// Conn returns the connection that is used, which Close closes.
func (b *Base) Conn() *nftconn.Conn { return b.conn }

// Flows returns conntrack's table of the namespace.
func (b *Base) Flows() *conntrack.Kernel { return b.flows }

// Cut makes conntrack forget connections, as conntrack.Cut.
func (b *Base) Cut(gone []conntrack.Connections, held func(lb.Key, netip.AddrPort) bool) error {
	return conntrack.Cut(b.flows, gone, held)
}

// AdoptRoutes returns the pools whose routes are there, and takes those for set that
// are not known.
func (b *Base) AdoptRoutes() (map[netip.Prefix]lb.Pool, error) {
	ways, err := b.routes.ways()
	if err != nil {
		return nil, err
	}
	routes := routed(ways)
	for prefix, p := range routes {
		if _, known := b.pools[prefix]; !known {
			b.pools[prefix] = p
		}
	}
	return routes, nil
}

// Pools returns the pools that are set. The result is the caller's.
func (b *Base) Pools() map[netip.Prefix]lb.Pool { return maps.Clone(b.pools) }

// Owns reports whether an address lies in one of the pools.
func (b *Base) Owns(a netip.Addr) bool {
	for p := range b.pools {
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
func (b *Base) Setup() error {
	if err := b.forward4(); err != nil {
		return err
	}
	there, err := b.sets()
	if err != nil {
		return err
	}
	if err := b.marks.makeMaps(there); err != nil {
		return err
	}
	taken, err := b.marks.takeOld()
	if err != nil {
		return err
	}
	if err := errors.Join(b.addTables(there), nftconn.EachChunk(taken, b.conn.Nftables.SetAddElements)); err != nil {
		return err
	}
	if err := b.conn.Commit(); err != nil {
		return nftconn.Explain("make table "+tableName, err)
	}
	for i := range nftconn.Families {
		if err := b.guard.writeMasquerade(i); err != nil {
			return nftconn.Explain("masquerade rule", err)
		}
		chains := []string{"guard", "refuse_prerouting", "refuse_output", "masq"}
		if b.marks.set[i] != nil {
			chains = append(append(chains, markChainNames()...), resetChainNames()...)
		}
		if err := b.book[i].Read(b.conn, chains...); err != nil {
			return err
		}
	}
	if !b.ready {
		if err := b.adopt(); err != nil {
			return err
		}
		b.ready = true
		return nil
	}
	return b.restore()
}

// sets returns which of the sets are there already. Those that nft has loaded
// again lack a flag that google/nftables gives, and newer kernels refuse to take
// one for the other.
func (b *Base) sets() (there map[*nftables.Set]bool, err error) {
	there = map[*nftables.Set]bool{}
	for i := range nftconn.Families {
		have, err := b.conn.HasTable(b.table[i])
		if err != nil {
			return nil, err
		}
		if !have {
			continue
		}
		all, err := b.conn.Nftables.GetSets(b.table[i])
		if err != nil {
			return nil, nftconn.Explain("list sets", err)
		}
		for _, set := range b.setsOf(i) {
			there[set] = slices.ContainsFunc(all,
				func(o *nftables.Set) bool { return o.Name == set.Name && nftconn.SameKeys(o, set) })
		}
	}
	return there, nil
}

// setsOf returns the sets of a family.
func (b *Base) setsOf(i int) []*nftables.Set {
	all := []*nftables.Set{b.guard.pool[i], b.guard.tasks[i]}
	if b.marks.set[i] != nil {
		all = append(all, b.setsOfIPVS(i)...)
	}
	return all
}

// setsOfIPVS returns the sets of a family that only IPVS needs.
func (b *Base) setsOfIPVS(i int) []*nftables.Set {
	return slices.Concat([]*nftables.Set{b.marks.set[i]}, b.served.sets[i][:], b.marks.kept[i][:])
}

// addTables queues tables, sets that are not there, and rules but for the
// masquerade.
func (b *Base) addTables(there map[*nftables.Set]bool) error {
	c := b.conn.Nftables
	for i := range nftconn.Families {
		c.AddTable(b.table[i])
		for _, set := range b.setsOf(i) {
			if there[set] {
				continue
			}
			if err := c.AddSet(set, nil); err != nil {
				return fmt.Errorf("set %s: %w", set.Name, err)
			}
		}
		b.guard.addRules(c, i)
		if b.marks.set[i] != nil {
			b.marks.addRules(c, i)
		}
	}
	return nil
}

// Probe reports whether the kernel has what a Marked needs, without
// leaving anything behind. The error is as of lb.Driver.Probe.
func Probe(cfg Config) error {
	b, err := newBase(cfg, true)
	if err != nil {
		return err
	}
	defer b.Close()
	for i := range b.table {
		b.table[i].Name = "meshd_probe"
	}
	if err := b.addTables(nil); err != nil {
		return err
	}
	for i := range nftconn.Families {
		b.conn.Nftables.AddRule(&nftables.Rule{Table: b.table[i], Chain: b.guard.masq(i), Exprs: []expr.Any{&expr.Masq{}}})
		b.conn.Nftables.DelTable(b.table[i])
	}
	err = b.conn.Nftables.Flush()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: kernel has no nf_tables nat with masquerade, redirect, reject, fib and hash (%w); load "+
			"nft_chain_nat, nft_masq, nft_redir, nft_reject_ipv4, nft_reject_ipv6, nft_fib_ipv4, nft_fib_ipv6, nft_hash",
			lb.ErrUnsupported, err)
	}
	return nftconn.Explain("probe nftables", err)
}

// adopt reads the pools that a previous run left: those with a way of ours. A
// prefix that is in the set only will be set again or forgotten.
func (b *Base) adopt() error {
	ways, err := b.routes.ways()
	if err != nil {
		return err
	}
	b.pools = map[netip.Prefix]lb.Pool{}
	for prefix, w := range ways {
		b.pools[prefix] = lb.Pool{Prefix: prefix, Src: w.src}
	}
	if err := errors.Join(b.marks.adopt(), b.served.adopt()); err != nil {
		return err
	}
	if err := b.guard.writePools(b.pools); err != nil {
		return err
	}
	return b.repairWays(ways)
}

// restore makes pools and marks as they should be, after somebody else has
// changed them. Pools that came meanwhile are adopted: what is not wanted of
// them will be deleted.
func (b *Base) restore() error {
	if err := b.guard.writePools(b.pools); err != nil {
		return err
	}
	if err := errors.Join(b.marks.restore(), b.served.restore()); err != nil {
		return err
	}
	ways, err := b.routes.ways()
	if err != nil {
		return err
	}
	for _, p := range b.pools {
		if err := b.forward(p); err != nil {
			return err
		}
	}
	for prefix, w := range ways {
		if _, known := b.pools[prefix]; !known {
			b.pools[prefix] = lb.Pool{Prefix: prefix, Src: w.src}
		}
	}
	return b.repairWays(ways)
}

// SetPool makes a prefix ours: guard and masquerade first, then the way to it,
// with the pool's source address. What fails is undone.
func (b *Base) SetPool(p lb.Pool) error {
	if err := b.routes.hasIPv6(p.Prefix); err != nil {
		return err
	}
	next := b.Pools()
	next[p.Prefix] = p
	if err := b.forward(p); err != nil {
		return err
	}
	if err := b.guard.writePools(next); err != nil {
		return err
	}
	_, known := b.pools[p.Prefix]
	if err := b.routes.set(p); err != nil {
		if !known {
			err = errors.Join(err, b.routes.remove(p.Prefix))
		}
		return errors.Join(err, b.guard.writePools(b.pools))
	}
	if !known {
		b.forgetUntranslated(p.Prefix)
	}
	b.pools = next
	return nil
}

// DelPool removes what SetPool made.
func (b *Base) DelPool(prefix netip.Prefix) error {
	next := b.Pools()
	delete(next, prefix)
	if err := b.routes.remove(prefix); err != nil {
		return err
	}
	if err := b.guard.writePools(next); err != nil {
		return err
	}
	b.pools = next
	return nil
}

// repairWays completes the ways to the pools, also those that another version
// made. A pool that cannot be had any more goes: whoever wants it is told why by
// SetPool.
func (b *Base) repairWays(ways map[netip.Prefix]way) error {
	for prefix, p := range b.pools {
		want, err := b.routes.routeMTU(p)
		if err != nil {
			return err
		}
		if w := ways[prefix]; w.complete() && w.src == p.Src && w.mtu == want {
			continue
		}
		switch err = b.routes.hasIPv6(prefix); {
		case errors.Is(err, errNoIPv6):
			b.cfg.Log.Warn("pool is not balanced any more", slog.Any("pool", prefix), slog.Any("error", err))
			err = b.DelPool(prefix)
		case err == nil:
			err = b.routes.set(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
