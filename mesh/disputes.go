package mesh

import (
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/registry"
	"meshd/state"
)

// disputes tells of networks that are defined twice, or overlap. It belongs to the
// goroutine of the registry's upkeep.
type disputes struct {
	n *Node
	paced
}

// looked takes in what the registry has found; nil: nothing that is new. It says so
// loudly when the text changes, but not with each change.
func (d *disputes) looked(defs *state.Definitions, joined []string) {
	if defs != nil {
		d.text = strings.Join(registry.Troubles(defs, joined), "; ")
	}
	d.n.notices.set("networks", d.text)
	if d.due(time.Now()) {
		d.n.log.Error("network defined twice", "detail", d.text)
		d.n.emit(control.Event{Type: control.EventNetworkConflict, Detail: d.text})
	}
}
