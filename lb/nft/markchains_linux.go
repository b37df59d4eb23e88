package nft

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// A firewall mark has 32 bits that all software of a host shares, and IPVS
// compares all of them. So packets carry a mark of ours only from just before
// IPVS to just behind it: what others mark before that, and ask for in their
// rules and routing, is as they left it.
//
// (FirstMark and MarkBits say which marks.)
const (
	markTag   = 0xff000000 // the part of a mark that says that it is ours
	markClear = 0x0000c000 // what stays of it behind IPVS
)

// The places just before and just behind IPVS, which has 98 and 99 in the hook
// input, and -99 and -98 in the hook output.
const (
	markInputPriority    = 97
	markOutputPriority   = -100
	unmarkInputPriority  = 102 // behind the guard as well
	unmarkOutputPriority = -95
)

// markChains are the chains that mark and those that take the marks off.
type markChains struct{ mark, unmark [2]*nftables.Chain }

// remakeMarkChains makes the chains, without rules. Those of versions that
// marked before routing go.
func (h *Helpers) remakeMarkChains(c *nftables.Conn, i int) markChains {
	for _, old := range oldMarkChains(h.table[i]) {
		c.DelChain(remakeChain(c, old)) // there or not
	}
	chain := func(name string, hook *nftables.ChainHook, at nftables.ChainPriority) *nftables.Chain {
		return remakeChain(c, &nftables.Chain{
			Table: h.table[i], Name: name, Hooknum: hook, Priority: &at,
			Type: nftables.ChainTypeFilter,
		})
	}
	return markChains{
		mark: [2]*nftables.Chain{
			chain("mark_input", nftables.ChainHookInput, markInputPriority),
			chain("mark_local", nftables.ChainHookOutput, markOutputPriority),
		},
		unmark: [2]*nftables.Chain{
			chain("unmark_input", nftables.ChainHookInput, unmarkInputPriority),
			chain("unmark_output", nftables.ChainHookOutput, unmarkOutputPriority),
		},
	}
}

// oldMarkChains are those of versions that marked before routing.
func oldMarkChains(table *nftables.Table) []*nftables.Chain {
	return []*nftables.Chain{
		{
			Table: table, Name: "mark_prerouting", Hooknum: nftables.ChainHookPrerouting,
			Priority: nftables.ChainPriorityMangle, Type: nftables.ChainTypeFilter,
		},
		{
			Table: table, Name: "mark_output", Hooknum: nftables.ChainHookOutput,
			Priority: nftables.ChainPriorityMangle, Type: nftables.ChainTypeRoute,
		},
	}
}

// markChainNames are the chains of remakeMarkChains.
func markChainNames() []string {
	return []string{"mark_input", "mark_local", "unmark_input", "unmark_output"}
}

// resetChainNames are the chains that addReset makes.
func resetChainNames() []string { return []string{"reset_input", "reset_output"} }

// addMarkRules marks packets to services for all ports, from elsewhere and from
// the own host, and takes our part of the mark off what IPVS sends on or leaves:
//
//	mark    ip daddr . meta l4proto . th dport @served return
//	        meta mark set ip daddr . meta l4proto map @marks
//	unmark  meta mark and 0xff000000 == 0x6d000000 meta mark set meta mark and 0xc000
//
// IPVS looks for a mark before a port, so that what a service with ports serves gets
// none (L12). The second sets the whole mark, since IPVS compares the whole of it.
func (h *Helpers) addMarkRules(c *nftables.Conn, i int) {
	chains := h.remakeMarkChains(c, i)
	setMark := &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: firstReg}
	for _, chain := range chains.mark {
		c.AddRule(&nftables.Rule{Table: h.table[i], Chain: chain, Exprs: rules(families[i].loadKey(), []expr.Any{
			inSet(h.served[i][0]), &expr.Verdict{Kind: expr.VerdictReturn},
		})})
		c.AddRule(&nftables.Rule{Table: h.table[i], Chain: chain, Exprs: rules(families[i].loadWide(), []expr.Any{
			&expr.Lookup{
				SourceRegister: firstReg, DestRegister: firstReg, IsDestRegSet: true,
				SetName: h.mark[i].Name, SetID: h.mark[i].ID,
			},
			setMark,
		})})
	}
	for _, chain := range chains.unmark {
		c.AddRule(&nftables.Rule{Table: h.table[i], Chain: chain, Exprs: rules(
			loadMark(markTag), []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: native32(FirstMark)}},
			loadMark(markClear), []expr.Any{setMark})})
	}
}

// loadMark loads some bits of the packet's mark.
func loadMark(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: firstReg},
		&expr.Bitwise{SourceRegister: firstReg, DestRegister: firstReg, Len: 4, Mask: native32(bits), Xor: make([]byte, 4)},
	}
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
