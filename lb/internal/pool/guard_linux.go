package pool

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// guard is the pools' sets and the rules that refuse what no service takes.
type guard struct {
	*shared

	served *served
	pool   [2]*nftables.Set // interval sets of prefixes
	tasks  [2]*nftables.Set // addresses that connections to VIPs were led to
}

func newGuard(common *shared, served *served) *guard {
	g := &guard{shared: common, served: served}
	for i := range nftconn.Families {
		g.pool[i] = &nftables.Set{
			Table: g.table[i], ID: uint32(1 + i), Name: "pool", KeyType: nftconn.Families[i].Addr, Interval: true,
		}
		g.tasks[i] = g.newTaskSet(i)
	}
	return g
}

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
func (g *guard) addRules(c *nftables.Conn, i int) {
	f, prio := &nftconn.Families[i], nftables.ChainPriority(guardPriority)
	guard := nftconn.RemakeChain(c, &nftables.Chain{
		Table: g.table[i], Name: "guard", Hooknum: nftables.ChainHookInput,
		Priority: &prio, Type: nftables.ChainTypeFilter,
	})
	c.AddChain(g.masq(i))
	refused := []expr.Any{
		nftconn.LoadMeta(expr.MetaKeyPRIORITY),
		nftconn.Equal(priority(refusedPriority)),
	}
	pool := nftconn.Concat([]expr.Any{f.LoadDestination(nftconn.FirstRegister), nftconn.InSet(g.pool[i])}, notOwn(f))
	for _, exprs := range [][]expr.Any{
		nftconn.Concat(g.invalid(i), []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}),
		// a VIP answers ping
		nftconn.Concat(refused, nftconn.IsProtocol(f.ICMP), echoRequest(f), setPriority(0), []expr.Any{nftconn.Return()}),
		nftconn.Concat(refused, unreachable(f)),
		nftconn.Concat(pool, nftconn.IsProtocol(unix.IPPROTO_TCP), reset()),
		nftconn.Concat(pool, unreachable(f)),
	} {
		c.AddRule(&nftables.Rule{Table: g.table[i], Chain: guard, Exprs: exprs})
	}
	if g.served.sets[i][0] != nil {
		for _, name := range leaveChainNames() {
			g.dropChain(i, name)
		}
		g.addReset(c, i, "reset_input", nftables.ChainHookInput, resetInputPriority, notOwn(f), true)
		g.addReset(c, i, "reset_output", nftables.ChainHookOutput, resetOutputPriority, nftconn.SentToHost(), true)
	}
	g.addRefuse(c, i, "refuse_prerouting", nftables.ChainHookPrerouting, nftconn.RoutedToHost())
	g.addRefuse(c, i, "refuse_output", nftables.ChainHookOutput, nftconn.SentToHost())
}

// addRefuse makes a chain that redirects to the host itself what no service
// took of a pool.
func (g *guard) addRefuse(c *nftables.Conn, i int, name string, hook *nftables.ChainHook, routed []expr.Any) {
	prio := nftables.ChainPriority(refusePriority)
	chain := nftconn.RemakeChain(c, &nftables.Chain{
		Table: g.table[i], Name: name, Hooknum: hook, Priority: &prio,
		Type: nftables.ChainTypeNAT,
	})
	g.served.addRules(c, i, chain)
	pool := nftconn.Concat(nftconn.Families[i].DestinationIn(g.pool[i]), routed, setPriority(refusedPriority))
	for _, exprs := range [][]expr.Any{
		nftconn.Concat(nftconn.IsProtocol(unix.IPPROTO_UDP), pool, []expr.Any{
			&expr.Immediate{Register: nftconn.FirstRegister, Data: binary.BigEndian.AppendUint16(nil, refusedPort)},
			&expr.Redir{RegisterProtoMin: nftconn.FirstRegister},
		}),
		nftconn.Concat([]expr.Any{
			nftconn.LoadProtocol(nftconn.FirstRegister), nftconn.NotEqual([]byte{unix.IPPROTO_TCP}),
		}, pool, []expr.Any{&expr.Redir{}}),
	} {
		c.AddRule(&nftables.Rule{Table: g.table[i], Chain: chain, Exprs: exprs})
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
func (g *guard) addReset(c *nftables.Conn, i int, name string, hook *nftables.ChainHook, prio nftables.ChainPriority,
	routed []expr.Any, served bool,
) {
	f := &nftconn.Families[i]
	chain := nftconn.RemakeChain(c, &nftables.Chain{
		Table: g.table[i], Name: name, Hooknum: hook, Priority: &prio,
		Type: nftables.ChainTypeFilter,
	})
	add := func(parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: g.table[i], Chain: chain, Exprs: nftconn.Concat(parts...)})
	}
	otherwise := []expr.Any{nftconn.Return()}
	add(opposite(nftconn.IsProtocol(unix.IPPROTO_TCP)), otherwise)
	add(opposite(nftconn.InState(expr.CtStateBitNEW)), otherwise)
	if served {
		g.served.addRules(c, i, chain)
	}
	add(nftconn.IsProtocol(unix.IPPROTO_TCP), f.DestinationIn(g.pool[i]), routed, reset())
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

// RefusedFlow names what conntrack remembers of UDP packets that the host itself
// sent to a service without backends. (Of others it remembers nothing.)
func RefusedFlow(k lb.Key) netip.AddrPort {
	a := netip.IPv6Loopback()
	if k.VIP.Is4() {
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if k.AllPorts() {
		return netip.AddrPortFrom(a, 0)
	}
	return netip.AddrPortFrom(a, refusedPort)
}

// notOwn matches destinations that the kernel does not have as addresses. That
// is IPv4's to tell: of IPv6 the kernel calls local whatever is routed so, and
// until a pool is withdrawn, the guard refuses an address of the host in it.
func notOwn(f *nftconn.Family) []expr.Any {
	if f.Proto == unix.NFPROTO_IPV6 {
		return nil
	}
	return []expr.Any{
		&expr.Fib{Register: nftconn.FirstRegister, ResultADDRTYPE: true, FlagDADDR: true},
		nftconn.NotEqual(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)),
	}
}

func priority(value uint32) []byte { return binary.NativeEndian.AppendUint32(nil, value) }

func setPriority(value uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: nftconn.FirstRegister, Data: priority(value)},
		nftconn.SetMeta(expr.MetaKeyPRIORITY),
	}
}

func echoRequest(f *nftconn.Family) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: nftconn.FirstRegister, Base: expr.PayloadBaseTransportHeader, Len: 1},
		nftconn.Equal([]byte{f.Echo}),
	}
}

func reset() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
}

func unreachable(f *nftconn.Family) []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: f.PortUnreachable}}
}

// masq returns the chain of the masquerade rule.
func (g *guard) masq(i int) *nftables.Chain {
	return &nftables.Chain{
		Table: g.table[i], Name: "masq", Hooknum: nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource, Type: nftables.ChainTypeNAT,
	}
}
