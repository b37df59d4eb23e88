package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// serviceTable is the name of this driver's table.
const serviceTable = "meshd_nat"

// layout is the constant part of table meshd_nat: its maps and base chains.
type layout struct {
	table *nftables.Table
	maps  [2]familyMaps
	book  nftconn.RuleBook
}

// familyMaps are the maps of one address family. Their shapes are in the
// package comment.
type familyMaps struct {
	svc, eps       *nftables.Set // services with ports
	all, allepsSet *nftables.Set // services for all ports
	class          *nftables.Set // class numbers to class chains
}

func newLayout() *layout {
	l := &layout{
		table: &nftables.Table{Name: serviceTable, Family: nftables.TableFamilyINet},
		book:  nftconn.RuleBook{Family: unix.NFPROTO_INET, Table: serviceTable, Name: "inet " + serviceTable},
	}
	for i := range nftconn.Families {
		f := &nftconn.Families[i]
		m := func(n int, name string, key, data nftables.SetDatatype, concat bool) *nftables.Set {
			return &nftables.Set{
				Table: l.table, ID: uint32(5*i + n), Name: name + f.Digit, IsMap: true,
				KeyType: key, DataType: data, Concatenation: concat,
			}
		}
		proto, port := nftables.TypeInetProto, nftables.TypeInetService
		// Slots and class numbers are declared as packet priorities, in which they
		// travel. nft 1.0.6 aborts on listing a concatenation with a plain integer.
		number := nftables.TypeClassID
		l.maps[i] = familyMaps{
			svc: m(1, "svc", nftables.MustConcatSetType(f.Addr, proto, port), number, true),
			eps: m(2, "eps", nftables.MustConcatSetType(f.Addr, proto, port, number),
				nftables.MustConcatSetType(f.Addr, port), true),
			all:       m(3, "all", nftables.MustConcatSetType(f.Addr, proto), number, true),
			allepsSet: m(4, "alleps", nftables.MustConcatSetType(f.Addr, proto, number), f.Addr, true),
			class:     m(5, "class", number, nftables.TypeVerdict, false),
		}
		l.maps[i].svc.Counter, l.maps[i].all.Counter = true, true
	}
	return l
}

// add queues table, maps and base chains. What is there stays; the rules of
// the base chains are replaced.
func (l *layout) add(c *nftables.Conn) error {
	c.AddTable(l.table)
	for i := range l.maps {
		m := &l.maps[i]
		for _, set := range []*nftables.Set{m.svc, m.eps, m.all, m.allepsSet, m.class} {
			if err := c.AddSet(set, nil); err != nil {
				return fmt.Errorf("map %s: %w", set.Name, err)
			}
		}
	}
	for i := range l.maps {
		l.addServices(c, i)
		l.addBackends(c, i, false)
		l.addBackends(c, i, true)
	}
	l.addBase(c, "prerouting", nftables.ChainHookPrerouting, nftconn.RoutedToHost())
	l.addBase(c, "output", nftables.ChainHookOutput, nftconn.SentToHost())
	return nil
}

// addBase makes the chain of a hook. The host's routing decides first: what it
// sends to a neighbour or elsewhere is no service's, whatever its address.
func (l *layout) addBase(c *nftables.Conn, name string, hook *nftables.ChainHook, routed []expr.Any) {
	base := nftconn.RemakeChain(c, &nftables.Chain{
		Table: l.table, Name: name, Hooknum: hook,
		Priority: nftables.ChainPriorityNATDest, Type: nftables.ChainTypeNAT,
	})
	for i := range nftconn.Families {
		f := &nftconn.Families[i]
		c.AddRule(&nftables.Rule{Table: l.table, Chain: base, Exprs: nftconn.Concat(f.Match(), routed,
			[]expr.Any{nftconn.Goto("services" + f.Digit)})})
	}
}

// addServices makes the chain that finds a packet's service, by its ports or
// for all ports, and goes to the chain of its class:
//
//	meta priority set ip daddr . meta l4proto . th dport map @svc4 meta priority vmap @class4
//
// Two steps rather than one map of verdicts: whenever a verdict that goes to a
// chain is added, the kernel checks every verdict of the table for loops, so
// that the map of verdicts must stay small. Class and slot travel in the
// packet's priority, because nft 1.0.6 aborts on listing a lookup of what a
// lookup found. addBackends sets it to 0; only the first packet of a connection
// comes here.
func (l *layout) addServices(c *nftables.Conn, i int) {
	f, m := &nftconn.Families[i], &l.maps[i]
	chain := nftconn.RemakeChain(c, &nftables.Chain{Table: l.table, Name: "services" + f.Digit})
	find := func(set *nftables.Set) []expr.Any {
		return []expr.Any{
			nftconn.Lookup(nftconn.FirstRegister, set),
			nftconn.SetMeta(expr.MetaKeyPRIORITY),
			nftconn.LoadMeta(expr.MetaKeyPRIORITY),
			&expr.Lookup{
				SourceRegister: nftconn.FirstRegister, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true,
				SetName: m.class.Name, SetID: m.class.ID,
			},
		}
	}
	add := func(load, then []expr.Any) {
		c.AddRule(&nftables.Rule{Table: l.table, Chain: chain, Exprs: nftconn.Concat(f.Match(), load, then)})
	}
	add(f.LoadService(), find(m.svc))
	add(f.LoadServiceAddress(), find(m.all))
}

// maxShards bounds the chains of one size. Round robin counters belong to
// chains; services of a chain share them.
const maxShards = 32

// class is a class chain: what the services that use it have in common.
type class struct {
	family int // index in families
	all    bool
	hash   bool
	slots  uint32
	shard  uint32
}

// name returns the chain's name, as "rr4_10_0" or "hash6all_61_0".
func (c class) name() string {
	pick, ports := "rr", ""
	if c.hash {
		pick = "hash"
	}
	if c.all {
		ports = "all"
	}
	return fmt.Sprintf("%s%s%s_%d_%d", pick, nftconn.Families[c.family].Digit, ports, c.slots, c.shard)
}

// number returns what stands for the class in the service maps.
func (c class) number() uint32 {
	n := c.slots<<8 | c.shard<<2
	if c.all {
		n |= 2
	}
	if c.hash {
		n |= 1
	}
	return n
}

// classAt is the inverse of class.number.
func classAt(n uint32, family int) (class, error) {
	c := class{family: family, slots: n >> 8, shard: n >> 2 & 63, all: n&2 != 0, hash: n&1 != 0}
	if c.slots == 0 || c.shard >= maxShards {
		return class{}, fmt.Errorf("class number %#x has %d slots, shard %d", n, c.slots, c.shard)
	}
	return c, nil
}

// classOf returns the class of a service with that many slots, in shard 0.
func classOf(s *lb.Service, slots int) class {
	return class{family: nftconn.FamilyIndex(s.VIP), all: s.AllPorts(), hash: hashed(s), slots: uint32(slots)}
}

// hashSeed makes every node, and every run, hash clients alike.
const hashSeed = 0x6d657368

// baseChains returns the names of the chains that are there without services.
func baseChains() []string {
	names := []string{"prerouting", "output"}
	for i := range nftconn.Families {
		names = append(names, "services"+nftconn.Families[i].Digit, backendsChain(i, false), backendsChain(i, true))
	}
	return names
}

// backendsChain returns the name of the chain that translates.
func backendsChain(family int, all bool) string {
	if all {
		return "backends" + nftconn.Families[family].Digit + "all"
	}
	return "backends" + nftconn.Families[family].Digit
}

// addBackends makes the chain that translates to the backend in the slot that
// a class chain has picked:
//
//	meta priority set 0 dnat ip to ip daddr . meta l4proto . th dport . meta priority map @eps4
//
// It is one chain for all classes: the kernel checks every element of a map
// when a rule of another chain begins to use it. (The priority is read before
// it is set; nft lists it the other way round.)
func (l *layout) addBackends(c *nftables.Conn, i int, all bool) {
	f, m := &nftconn.Families[i], &l.maps[i]
	chain := nftconn.RemakeChain(c, &nftables.Chain{Table: l.table, Name: backendsChain(i, all)})
	key, set, slot := f.LoadService(), m.eps, nftconn.RegisterAt(f.Size+8)
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.Proto), RegAddrMin: nftconn.FirstRegister}
	if all {
		key, set, slot = f.LoadServiceAddress(), m.allepsSet, nftconn.RegisterAt(f.Size+4)
	} else {
		nat.RegProtoMin = nftconn.RegisterAt(f.Size)
	}
	c.AddRule(&nftables.Rule{Table: l.table, Chain: chain, Exprs: nftconn.Concat(f.Match(), key, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: slot},
		&expr.Immediate{Register: slot + 1, Data: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: slot + 1},
		nftconn.Lookup(nftconn.FirstRegister, set),
		nat,
	})})
}

// addClass queues a class chain with its rule and the way to it:
//
//	meta priority set numgen inc mod 10 goto backends4
func (l *layout) addClass(c *nftables.Conn, cl class) error {
	f, m := &nftconn.Families[cl.family], &l.maps[cl.family]
	chain := nftconn.RemakeChain(c, &nftables.Chain{Table: l.table, Name: cl.name()})
	l.book.Forget(cl.name())
	pick := []expr.Any{&expr.Numgen{Register: nftconn.FirstRegister, Modulus: cl.slots, Type: unix.NFT_NG_INCREMENTAL}}
	if cl.hash {
		pick = nftconn.Concat(f.Match(), []expr.Any{f.LoadSource(nftconn.FirstRegister), &expr.Hash{
			SourceRegister: nftconn.FirstRegister, DestRegister: nftconn.FirstRegister,
			Length: f.Size, Modulus: cl.slots, Seed: hashSeed, Type: expr.HashTypeJenkins,
		}})
	}
	c.AddRule(&nftables.Rule{Table: l.table, Chain: chain, Exprs: nftconn.Concat(pick, []expr.Any{
		nftconn.SetMeta(expr.MetaKeyPRIORITY),
		nftconn.Goto(backendsChain(cl.family, cl.all)),
	})})
	return c.SetAddElements(m.class, []nftables.SetElement{classElement(cl)})
}

// delClass queues the removal of what addClass makes.
func (l *layout) delClass(c *nftables.Conn, cl class) error {
	l.book.Forget(cl.name())
	err := c.SetDeleteElements(l.maps[cl.family].class, []nftables.SetElement{classElement(cl)})
	c.DelChain(&nftables.Chain{Table: l.table, Name: cl.name()})
	l.book.Forget(cl.name())
	return err
}
