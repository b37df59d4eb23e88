package gossip

import (
	"net/netip"
	"testing"

	"meshd/state"
)

// What a network is follows from the members that answered this node and live,
// not from those that are only said to be members (V6).
func TestOnlyWhoAnsweredDecidesWhatANetworkIs(t *testing.T) {
	c := crowd(1, 3)
	for id, pool := range map[state.NodeID]string{
		"host0": "10.96.0.0/16", "ghost0": "10.1.0.0/16",
		"ghost1": "10.1.0.0/16", "ghost2": "10.1.0.0/16",
	} {
		o := state.NewStore(id, 1, state.DefaultLimits(), new(counter))
		claim := state.NetworkClaim{NetworkDef: state.NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix(pool)}}
		if _, err := o.Global().Commit([]state.Change{{
			Kind: state.KindNetwork, Key: "net",
			Body: string(state.AppendNetwork(nil, claim)),
		}}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.store.Apply(o.Global().Delta(state.Want{Owner: id}, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.store.Defs()["net"].Subnet4.String(); got != "10.96.0.0/16" {
		t.Errorf("the members that never answered decide: %s", got)
	}
	die(c, "host0")
	c.store.Publish(0)
	if d := c.store.Definitions().Names["net"]; d == nil || d.Stated[0].Answering != 0 || d.Stated[1].Answering != 0 {
		t.Errorf("a dead member still counts as one that answers: %+v", d)
	}
}
