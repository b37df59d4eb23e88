package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// layout is the constant part of table meshd_nat: its maps and base chains.
type layout struct {
	table *nftables.Table
	maps  [2]familyMaps
}

// familyMaps are the maps of one address family. Their shapes are in the
// package comment.
type familyMaps struct {
	svc, eps       *nftables.Set // services with ports
	all, allepsSet *nftables.Set // services for all ports
}

func newLayout() *layout {
	l := &layout{table: &nftables.Table{Name: serviceTable, Family: nftables.TableFamilyINet}}
	for i := range families {
		f := &families[i]
		m := func(n int, name string, key, data nftables.SetDatatype, concat bool) *nftables.Set {
			return &nftables.Set{
				Table: l.table, ID: uint32(4*i + n), Name: name + f.digit, IsMap: true,
				KeyType: key, DataType: data, Concatenation: concat, Counter: data.Name == nftables.TypeVerdict.Name,
			}
		}
		proto, port := nftables.TypeInetProto, nftables.TypeInetService
		// The slot number is declared as a mark: nft 1.0.6 aborts on listing a
		// concatenation with a plain integer.
		slot := nftables.TypeMark
		l.maps[i] = familyMaps{
			svc:       m(1, "svc", nftables.MustConcatSetType(f.addr, proto, port), nftables.TypeVerdict, true),
			eps:       m(2, "eps", nftables.MustConcatSetType(f.addr, proto, port, slot), nftables.MustConcatSetType(f.addr, port), true),
			all:       m(3, "all", f.addr, nftables.TypeVerdict, false),
			allepsSet: m(4, "alleps", nftables.MustConcatSetType(f.addr, slot), f.addr, true),
		}
	}
	return l
}

// add queues table, maps and base chains. What is there stays; the rules of
// the base chains are replaced.
func (l *layout) add(c *nftables.Conn) error {
	c.AddTable(l.table)
	for i := range l.maps {
		m := &l.maps[i]
		for _, set := range []*nftables.Set{m.svc, m.eps, m.all, m.allepsSet} {
			if err := c.AddSet(set, nil); err != nil {
				return fmt.Errorf("map %s: %w", set.Name, err)
			}
		}
	}
	for i := range l.maps {
		l.addServices(c, i)
	}
	l.addBase(c, "prerouting", nftables.ChainHookPrerouting)
	l.addBase(c, "output", nftables.ChainHookOutput)
	return nil
}

func (l *layout) addBase(c *nftables.Conn, name string, hook *nftables.ChainHook) {
	base := remakeChain(c, &nftables.Chain{
		Table: l.table, Name: name, Hooknum: hook,
		Priority: nftables.ChainPriorityNATDest, Type: nftables.ChainTypeNAT,
	})
	for i := range families {
		f := &families[i]
		c.AddRule(&nftables.Rule{Table: l.table, Chain: base, Exprs: rules(f.match(), []expr.Any{to("services" + f.digit)})})
	}
}

// addServices makes the chain that finds a packet's service.
func (l *layout) addServices(c *nftables.Conn, i int) {
	f, m := &families[i], &l.maps[i]
	chain := remakeChain(c, &nftables.Chain{Table: l.table, Name: "services" + f.digit})
	lookup := func(set *nftables.Set) expr.Any {
		return &expr.Lookup{
			SourceRegister: firstReg, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true,
			SetName: set.Name, SetID: set.ID,
		}
	}
	c.AddRule(&nftables.Rule{Table: l.table, Chain: chain, Exprs: rules(f.match(), f.loadKey(), []expr.Any{lookup(m.svc)})})
	for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		c.AddRule(&nftables.Rule{
			Table: l.table, Chain: chain,
			Exprs: rules(f.match(), l4(proto), []expr.Any{f.loadDst(firstReg), lookup(m.all)}),
		})
	}
}

// loadKey loads VIP . protocol . port.
func (f *family) loadKey() []expr.Any {
	return []expr.Any{f.loadDst(reg(0)), loadL4Proto(reg(f.size)), loadPort(reg(f.size + 4))}
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
	return fmt.Sprintf("%s%s%s_%d_%d", pick, families[c.family].digit, ports, c.slots, c.shard)
}

// classOf returns the class of a service with that many slots, in shard 0.
func classOf(s *lb.Service, slots int) class {
	return class{family: familyIndex(s.VIP), all: s.AllPorts(), hash: hashed(s), slots: uint32(slots)}
}

// hashSeed makes every node, and every run, hash clients alike.
const hashSeed = 0x6d657368

// addClass queues a class chain with its rule.
func (l *layout) addClass(c *nftables.Conn, cl class) {
	f, m := &families[cl.family], &l.maps[cl.family]
	chain := remakeChain(c, &nftables.Chain{Table: l.table, Name: cl.name()})
	key, set, slotAt := f.loadKey(), m.eps, f.size+8
	if cl.all {
		key, set, slotAt = []expr.Any{f.loadDst(reg(0))}, m.allepsSet, f.size
	}
	pick := []expr.Any{&expr.Numgen{Register: reg(slotAt), Modulus: cl.slots, Type: unix.NFT_NG_INCREMENTAL}}
	if cl.hash {
		scratch := reg(slotAt + 4) // beyond the key; a source address fits behind every key
		pick = []expr.Any{f.loadSrc(scratch), &expr.Hash{
			SourceRegister: scratch, DestRegister: reg(slotAt),
			Length: f.size, Modulus: cl.slots, Seed: hashSeed, Type: expr.HashTypeJenkins,
		}}
	}
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.nfproto), RegAddrMin: firstReg}
	if !cl.all {
		nat.RegProtoMin = reg(f.size)
	}
	c.AddRule(&nftables.Rule{Table: l.table, Chain: chain, Exprs: rules(f.match(), key, pick, []expr.Any{
		&expr.Lookup{SourceRegister: firstReg, DestRegister: firstReg, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
		nat,
	})})
}
