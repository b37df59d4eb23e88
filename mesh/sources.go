package mesh

import (
	"cmp"
	"context"
	"slices"

	"meshd/mesh/control"
)

// Sources implements control.SourceBackend.
func (n *Node) Sources(context.Context) ([]control.SourceUnit, error) {
	all := []control.SourceUnit{}
	for _, units := range n.sources {
		all = append(all, units()...)
	}
	slices.SortStableFunc(all, func(a, b control.SourceUnit) int {
		return cmp.Or(cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Unit, b.Unit))
	})
	return all, nil
}
