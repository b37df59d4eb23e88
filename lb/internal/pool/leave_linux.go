package pool

import (
	"github.com/google/nftables"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// leaveOutputPriority is between the services of the nft driver and IPVS.
const leaveOutputPriority = -99

// leaveChainNames are the chains of RemoveMarking.
func leaveChainNames() []string { return []string{"leave_input", "leave_output"} }

// RemoveMarking takes away what leads packets to IPVS, and what keeps them from
// it, for another driver that has taken over: what that one leaves is refused.
// The pools stay, and the map of marks, which says what services IPVS still has.
func (m *Marked) RemoveMarking() error {
	there, err := m.Base.sets()
	if err != nil {
		return err
	}
	for i := range nftconn.Families {
		if m.set[i] == nil || !there[m.set[i]] && !there[m.served.sets[i][0]] {
			continue // no IPVS was here
		}
		for _, name := range append(markChainNames(), resetChainNames()...) {
			m.guard.dropChain(i, name)
		}
		c, f := m.Base.conn.Nftables, &nftconn.Families[i]
		m.guard.addReset(c, i, "leave_input", nftables.ChainHookInput, resetInputPriority, notOwn(f), false)
		m.guard.addReset(c, i, "leave_output", nftables.ChainHookOutput, leaveOutputPriority, nftconn.SentToHost(), false)
	}
	return nftconn.Explain("remove marks", m.Base.conn.Commit())
}

// dropChain queues the removal of a chain, there or not.
func (g *guard) dropChain(i int, name string) {
	chain := &nftables.Chain{Table: g.table[i], Name: name}
	g.conn.Nftables.AddChain(chain)
	g.conn.Nftables.FlushChain(chain)
	g.conn.Nftables.DelChain(chain)
}

// RemoveMarks deletes the sets that only IPVS needs, and the chains that
// RemoveMarking made.
func (m *Marked) RemoveMarks() error {
	there, err := m.Base.sets()
	if err != nil {
		return err
	}
	for i := range nftconn.Families {
		if m.set[i] == nil || !there[m.set[i]] && !there[m.served.sets[i][0]] {
			continue
		}
		for _, name := range leaveChainNames() {
			m.guard.dropChain(i, name)
		}
		for _, set := range m.setsOfIPVS(i) {
			if set != nil && there[set] {
				m.Base.conn.Nftables.DelSet(set)
			}
		}
	}
	m.byService, m.has = map[lb.Key]uint32{}, map[lb.Key]bool{}
	return nftconn.Explain("remove the sets of IPVS", m.Base.conn.Commit())
}

// RefuseAll keeps everything from IPVS: what is new is refused.
func (m *Marked) RefuseAll() error {
	there, err := m.Base.sets()
	if err != nil {
		return err
	}
	for i := range nftconn.Families {
		for _, set := range m.served.sets[i] {
			if set != nil && there[set] {
				m.Base.conn.Nftables.FlushSet(set)
			}
		}
	}
	m.has = map[lb.Key]bool{}
	return nftconn.Explain("refuse what IPVS served", m.Base.conn.Commit())
}
