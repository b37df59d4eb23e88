package pool

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"meshd/lb/nftconn"
)

// A firewall mark has 32 bits that all software of a host shares, and IPVS
// compares all of them. So packets carry a mark of ours only from just before
// IPVS to just behind it, and have the mark of others before and after
// (keptmark_linux.go).
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

// What IPVS sends on begins the hook output anew. There, marks are off before
// anybody else sees the packet.
const (
	restoreSentPriority = -500
	unmarkSentPriority  = -499
)

// markChains are the chains of one family that deal in marks.
type markChains struct {
	mark        [2]*nftables.Chain // give packets our mark
	keep        *nftables.Chain    // does so for packets that have a mark of others
	restoreSent *nftables.Chain    // gives the mark of others back to what IPVS sends on
	unmarkSent  *nftables.Chain    // takes our mark off it
	unmark      [2]*nftables.Chain // do both to what stays on the host
}

// remakeChains makes the chains, without rules. Those of versions that
// marked before routing go.
func (m *marks) remakeChains(c *nftables.Conn, i int) markChains {
	for _, old := range oldMarkChains(m.table[i]) {
		c.DelChain(nftconn.RemakeChain(c, old)) // there or not
	}
	chain := func(name string, hook *nftables.ChainHook, at nftables.ChainPriority) *nftables.Chain {
		made := &nftables.Chain{Table: m.table[i], Name: name, Hooknum: hook, Priority: &at, Type: nftables.ChainTypeFilter}
		if name == "restore_sent" {
			made.Type = nftables.ChainTypeRoute
		}
		return nftconn.RemakeChain(c, made)
	}
	return markChains{
		mark: [2]*nftables.Chain{
			chain("mark_input", nftables.ChainHookInput, markInputPriority),
			chain("mark_local", nftables.ChainHookOutput, markOutputPriority),
		},
		keep:        nftconn.RemakeChain(c, &nftables.Chain{Table: m.table[i], Name: "keep_mark"}),
		restoreSent: chain("restore_sent", nftables.ChainHookOutput, restoreSentPriority),
		unmarkSent:  chain("unmark_sent", nftables.ChainHookOutput, unmarkSentPriority),
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

// markChainNames are the chains of remakeChains, in an order in which they
// can be deleted.
func markChainNames() []string {
	return []string{
		"mark_input", "mark_local", "keep_mark",
		"restore_sent", "unmark_sent", "unmark_input", "unmark_output",
	}
}

// resetChainNames are the chains that addReset makes.
func resetChainNames() []string { return []string{"reset_input", "reset_output"} }

// addRules marks packets to services for all ports, from elsewhere and from
// the own host, and takes our part of the mark off what IPVS sends on or leaves:
//
//	mark    ip daddr . meta l4proto . th dport @served return
//	        meta mark != 0 goto keep_mark
//	        meta mark set ip daddr . meta l4proto map @marks
//	unmark  meta mark and 0xff000000 == 0x6d000000 meta mark set meta mark and 0xc000
//
// IPVS looks for a mark before a port, so that what a service with ports serves gets
// none (L12). The last of each sets the whole mark, since IPVS compares the whole of it.
func (m *marks) addRules(c *nftables.Conn, i int) {
	chains := m.remakeChains(c, i)
	add := func(chain *nftables.Chain, parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: m.table[i], Chain: chain, Exprs: nftconn.Concat(parts...)})
	}
	m.addKeepRules(i, chains.keep, add)
	some := nftconn.NotEqual(nftconn.Native32(0))
	for _, chain := range chains.mark {
		add(chain, nftconn.Families[i].LoadService(), []expr.Any{nftconn.InSet(m.served.sets[i][0]), nftconn.Return()})
		add(chain, loadMark(), []expr.Any{some, nftconn.Goto(chains.keep.Name)})
		add(chain, m.setMark(i, nftconn.FirstRegister))
	}
	unmark := nftconn.Concat(ourMark(), loadMark(), []expr.Any{mask(markClear), setMark(nftconn.FirstRegister)})
	add(chains.restoreSent, ourMark(), m.restoreMark(i))
	add(chains.unmarkSent, unmark)
	for _, chain := range chains.unmark {
		add(chain, ourMark(), m.restoreMark(i))
		add(chain, unmark)
	}
}

// setMark gives a packet the mark of its service; without one the rule ends. It
// uses the register r and those behind it.
func (m *marks) setMark(i int, r uint32) []expr.Any {
	f := &nftconn.Families[i]
	return []expr.Any{
		f.LoadDestination(r), nftconn.LoadProtocol(r + f.Size/4),
		&expr.Lookup{
			SourceRegister: r, DestRegister: r, IsDestRegSet: true,
			SetName: m.set[i].Name, SetID: m.set[i].ID,
		},
		setMark(r),
	}
}

// setMark sets a packet's mark to what a register holds.
func setMark(r uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: r}
}

// loadMark loads a packet's mark.
func loadMark() []expr.Any {
	return []expr.Any{nftconn.LoadMeta(expr.MetaKeyMARK)}
}

// ourMark matches packets that have a mark of ours.
func ourMark() []expr.Any {
	return nftconn.Concat(loadMark(), []expr.Any{
		mask(markTag), nftconn.Equal(nftconn.Native32(FirstMark)),
	})
}

// mask leaves some bits of the first register.
func mask(bits uint32) expr.Any {
	return nftconn.Mask(nftconn.Native32(bits))
}
