package registry_test

import (
	"fmt"
	"testing"

	"meshd/mesh/internal/registry"
	"meshd/mesh/internal/registry/registrytest"
	"meshd/state"
)

// After another node had its name, a node states its networks and its own
// address again, though nothing that they depend on has changed in between (S7, V6).
func TestNodeThatHasItsNameAgainStatesItsNetworks(t *testing.T) {
	l := start(t, &registrytest.Disk{}, 1)
	l.network(t)
	idle := l.idle.Load() + 2
	eventually(t, func() string { // what it states does not change any more
		if l.Wake(); l.idle.Load() < idle {
			return "it is never idle"
		}
		return ""
	})
	err := l.mesh.Do(t.Context(), func(c registry.Core) {
		s := c.Store()
		namesake := state.NewStore(s.Self(), s.Incarnation()+5, state.DefaultLimits(), &registrytest.Clock{})
		_, err := namesake.Global().Commit([]state.Change{{
			Kind: state.KindNode,
			Body: string(state.AppendNode(nil, state.NodeInfo{Boot: 9})),
		}})
		if err != nil {
			t.Error(err)
		}
		s.SetYielded(true)
		if r, err := s.Apply(namesake.Global().Delta(state.Want{Owner: s.Self()}, 1<<20)); r != state.Applied || err != nil {
			t.Error(r, err)
		}
		s.SetYielded(false)
		s.Reincarnate(s.Incarnation() + 10)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Wake()
	eventually(t, func() (text string) {
		err := l.mesh.Do(t.Context(), func(c registry.Core) {
			if own := c.Store().Global().Own(state.KindNetwork); len(own) != 1 || own[0].Key() != "net" {
				text = fmt.Sprintf("of networks the node states %v", own)
			}
			if info, ok := c.Store().Node("a"); !ok || info.Boot != 7 {
				text = fmt.Sprintf("of itself it says %+v", info)
			}
		})
		if err != nil {
			return err.Error()
		}
		return text
	})
}
