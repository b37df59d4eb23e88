package conntrack

import (
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"meshd/lb/internal/linktest"
	"meshd/lb/nftconn"
)

// rig is a node, whose connections are tracked, and a peer.
type rig struct {
	*linktest.Pair

	kernel *Kernel
}

// newRig has connections tracked: by a rule that asks for their state.
func newRig(t testing.TB) *rig {
	p := linktest.New(t)
	conn, err := nftconn.Open(nftconn.Config{NetNS: p.Node.Path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for i := range nftconn.Families {
		table := &nftables.Table{Name: "tracks", Family: nftables.TableFamily(nftconn.Families[i].Proto)}
		conn.Nftables.AddTable(table)
		chain := conn.Nftables.AddChain(&nftables.Chain{
			Table: table, Name: "output", Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
			Type: nftables.ChainTypeFilter,
		})
		conn.Nftables.AddRule(&nftables.Rule{
			Table: table, Chain: chain, Exprs: nftconn.InState(expr.CtStateBitNEW),
		})
	}
	if err := conn.Commit(); err != nil {
		t.Fatal(err)
	}
	return &rig{p, New(conn)}
}
