package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// guardPriority comes after IPVS in the input hook (its highest is 100), so
// that only packets that no service took reach the guard (L2).
const guardPriority = 101

// refusePriority comes after the services of the nft driver, which are at the
// usual place of translations (-100): what they translate is not seen there.
const refusePriority = -90

// refusedPriority is the packet priority that tells the guard, in the input
// hook, what the chains of refused packets redirected: "mesh".
const refusedPriority = 0x6d657368

// refusedPort is where refused UDP goes, "discard": conntrack remembers what the
// host itself sends, and what follows must not reach another service of the
// host, only the kernel that refuses it too.
const refusedPort = 9

// addRules makes the guard of one family, the chains of what is refused, and
// the chain for the masquerade.
//
// A pool's route is not in the kernel's table of local addresses, so that it
// cannot take what is the host's own (L2). The price is that IPv4 does not send
// from a VIP: no ICMP error, no echo reply. What no service took is therefore
// redirected to an address of the host, and refused or answered there; conntrack
// translates that back to the VIP. TCP is not: resets may come from a VIP, and
// where br_netfilter is on, conntrack does not see those that go to a bridge.
//
//	refuse_prerouting  ip daddr @pool fib daddr oif 0 meta priority set 0x6d657368 redirect (UDP: to :9)
//	refuse_output      ip daddr @pool oif lo          meta priority set 0x6d657368 redirect (UDP: to :9)
//	guard              meta priority 0x6d657368 icmp type echo-request meta priority set 0 return
//	guard              meta priority 0x6d657368 … reject
//	guard              ip daddr @pool fib daddr type != local … reject
//
// In all of them the host's routing decides first whether a packet is for a
// pool at all: what it sends elsewhere, or has as an address, is left alone.
func (h *Helpers) addRules(c *nftables.Conn, i int) {
	f, prio := &families[i], nftables.ChainPriority(guardPriority)
	guard := remakeChain(c, &nftables.Chain{
		Table: h.table[i], Name: "guard", Hooknum: nftables.ChainHookInput,
		Priority: &prio, Type: nftables.ChainTypeFilter,
	})
	c.AddChain(h.masq(i))
	refused := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: firstReg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: priority(refusedPriority)},
	}
	pool := rules([]expr.Any{f.loadDst(firstReg), inSet(h.pool[i])}, f.notOwn())
	for _, exprs := range [][]expr.Any{
		rules(h.stray(i), []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}),
		// a VIP answers ping
		rules(refused, l4(f.icmp), f.echoRequest(), setPriority(0), []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}),
		rules(refused, f.unreachable()),
		rules(pool, l4(unix.IPPROTO_TCP), f.reset()),
		rules(pool, f.unreachable()),
	} {
		c.AddRule(&nftables.Rule{Table: h.table[i], Chain: guard, Exprs: exprs})
	}
	if h.mark[i] != nil {
		for _, name := range leaveChainNames() {
			h.dropChain(i, name)
		}
		h.addReset(c, i, "reset_input", nftables.ChainHookInput, resetInputPriority, f.notOwn(), true)
		h.addReset(c, i, "reset_output", nftables.ChainHookOutput, resetOutputPriority, sentToPool(), true)
	}
	h.addRefuse(c, i, "refuse_prerouting", nftables.ChainHookPrerouting, routedToPool())
	h.addRefuse(c, i, "refuse_output", nftables.ChainHookOutput, sentToPool())
}

// addRefuse makes a chain that redirects to the host itself what no service
// took of a pool.
func (h *Helpers) addRefuse(c *nftables.Conn, i int, name string, hook *nftables.ChainHook, routed []expr.Any) {
	prio := nftables.ChainPriority(refusePriority)
	chain := remakeChain(c, &nftables.Chain{
		Table: h.table[i], Name: name, Hooknum: hook, Priority: &prio,
		Type: nftables.ChainTypeNAT,
	})
	h.addServed(c, i, chain)
	pool := rules([]expr.Any{families[i].loadDst(firstReg), inSet(h.pool[i])}, routed, setPriority(refusedPriority))
	for _, exprs := range [][]expr.Any{
		rules(l4(unix.IPPROTO_UDP), pool, []expr.Any{
			&expr.Immediate{Register: firstReg, Data: binary.BigEndian.AppendUint16(nil, refusedPort)},
			&expr.Redir{RegisterProtoMin: firstReg},
		}),
		rules([]expr.Any{
			loadL4Proto(firstReg), &expr.Cmp{Op: expr.CmpOpNeq, Register: firstReg, Data: []byte{unix.IPPROTO_TCP}},
		}, pool, []expr.Any{&expr.Redir{}}),
	} {
		c.AddRule(&nftables.Rule{Table: h.table[i], Chain: chain, Exprs: exprs})
	}
}

// addReset makes a chain that refuses new TCP connections before IPVS gets them,
// which would answer with ICMP, from the VIP: those to services without backends
// or, without served, all.
//
//	meta l4proto != tcp return
//	ct state and new == 0 return
//	meta l4proto tcp ip daddr @pool reject with tcp reset
//
// All packets of the host come here. Most belong to a connection, and are let go
// before anything is looked up.
func (h *Helpers) addReset(c *nftables.Conn, i int, name string, hook *nftables.ChainHook, prio nftables.ChainPriority,
	routed []expr.Any, served bool,
) {
	f := &families[i]
	chain := remakeChain(c, &nftables.Chain{
		Table: h.table[i], Name: name, Hooknum: hook, Priority: &prio,
		Type: nftables.ChainTypeFilter,
	})
	add := func(parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: h.table[i], Chain: chain, Exprs: rules(parts...)})
	}
	otherwise := []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
	add(opposite(l4(unix.IPPROTO_TCP)), otherwise)
	add(opposite(inState(expr.CtStateBitNEW)), otherwise)
	if served {
		h.addServed(c, i, chain)
	}
	add(l4(unix.IPPROTO_TCP), []expr.Any{f.loadDst(firstReg), inSet(h.pool[i])}, routed, f.reset())
}

// opposite turns a match around, whose last expression compares.
func opposite(match []expr.Any) []expr.Any {
	last := *match[len(match)-1].(*expr.Cmp)
	if last.Op == expr.CmpOpEq {
		last.Op = expr.CmpOpNeq
	} else {
		last.Op = expr.CmpOpEq
	}
	return append(slices.Clone(match[:len(match)-1]), &last)
}

// The places before IPVS in the hooks input (99) and output (-99).
const (
	resetInputPriority  = 90
	resetOutputPriority = -150
)

// refusedFlow names what conntrack remembers of UDP packets that the host itself
// sent to a service without backends. (Of others it remembers nothing.)
func refusedFlow(k lb.Key) netip.AddrPort {
	a := netip.IPv6Loopback()
	if k.VIP.Is4() {
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if k.AllPorts() {
		return netip.AddrPortFrom(a, 0)
	}
	return netip.AddrPortFrom(a, refusedPort)
}

// routedToPool matches, in the prerouting hook, what the host's routing
// delivers to the host itself: a pool's route, or an address of its own. A
// packet to a neighbour, or to be sent on, has a device to leave by.
func routedToPool() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: firstReg, ResultOIF: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: make([]byte, 4)},
	}
}

// sentToPool matches, in the output hook, what stays on the host: it leaves by
// the loopback device, which is number 1 in every network namespace.
func sentToPool() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIF, Register: firstReg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: binary.NativeEndian.AppendUint32(nil, 1)},
	}
}

// notOwn matches destinations that the kernel does not have as addresses. That
// is IPv4's to tell: of IPv6 the kernel calls local whatever is routed so, and
// until a pool is withdrawn, the guard refuses an address of the host in it.
func (f *family) notOwn() []expr.Any {
	if f.nfproto == unix.NFPROTO_IPV6 {
		return nil
	}
	return []expr.Any{
		&expr.Fib{Register: firstReg, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: firstReg, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
	}
}

func priority(value uint32) []byte { return binary.NativeEndian.AppendUint32(nil, value) }

func setPriority(value uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: firstReg, Data: priority(value)},
		&expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: firstReg},
	}
}

func (f *family) echoRequest() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: firstReg, Base: expr.PayloadBaseTransportHeader, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: []byte{f.echo}},
	}
}

func (f *family) reset() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
}

func (f *family) unreachable() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: f.portUnreachable}}
}

// masq returns the chain of the masquerade rule.
func (h *Helpers) masq(i int) *nftables.Chain {
	return &nftables.Chain{
		Table: h.table[i], Name: "masq", Hooknum: nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource, Type: nftables.ChainTypeNAT,
	}
}
