package mesh

import (
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/notice"
	"meshd/mesh/internal/registry"
	"meshd/state"
)

// disputes tells of networks that are defined twice, or overlap. It belongs to the
// goroutine of the registry's upkeep.
type disputes struct {
	n *Node
	notice.Condition
}

// looked takes in what the registry has found; nil: nothing that is new. It says so
// loudly when the text changes, but not with each change.
func (d *disputes) looked(defs *state.Definitions, joined []string) {
	if defs != nil {
		d.Text = strings.Join(registry.Troubles(defs, joined), "; ")
	}
	d.n.notices.Set("networks", d.Text)
	if d.Due(time.Now()) {
		d.n.log.Error("network defined twice", "detail", d.Text)
		d.n.emit(control.Event{Type: control.EventNetworkConflict, Detail: d.Text})
	}
}
