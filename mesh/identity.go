package mesh

import (
	"errors"
	"fmt"

	"meshd/mesh/internal/store"
	"meshd/state"
)

// identity is node.json.
type identity struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Lamport     uint64 `json:"lamport"`
}

// check refuses numbers that no daemon reaches by itself: stated, they would
// silence the node, or the claims of the whole mesh.
func (id *identity) check() error {
	return errors.Join(state.CheckIncarnation(id.Incarnation), state.CheckLamport(id.Lamport))
}

// nextIdentity returns the identity of the life that begins (S7). It is not on disk
// yet: a start that fails must not claim the directory.
func nextIdentity(d *store.Dir, node string) (identity, error) {
	id := identity{Node: node}
	if err := d.Load(fileNode, &id); err != nil {
		return id, err
	}
	id.Incarnation++ // an overflow is refused as 0
	if err := id.check(); err != nil {
		return id, d.Corrupted(fileNode, err,
			"move it away; the node then starts with the incarnation that its peers remember")
	}
	if id.Node != node {
		return id, fmt.Errorf("node: the data directory %s belongs to node %q; start with --node %s, give this node "+
			"another --data-dir, or remove the directory if nothing in it is needed", d.Root(), id.Node, id.Node)
	}
	return id, nil
}
