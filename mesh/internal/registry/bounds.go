package registry

import (
	"fmt"
	"time"

	"meshd/mesh/control"
)

// Bounds limit what one node states, whoever asks for it (N5). The quota by which
// peers protect themselves (S13) is far above.
type Bounds struct {
	Networks    int           // with something of this node in them, or carried by it
	Services    int           // with tasks or reservations on this node, over all networks
	Tasks       int           // over all networks
	Removed     int           // removals of networks that are stated
	Reservation time.Duration // how long a service without tasks keeps its VIP (V2)
}

// DefaultBounds returns the bounds of a node without settings.
func DefaultBounds() Bounds {
	return Bounds{Networks: 1024, Services: 65_536, Tasks: 200_000, Removed: 1024, Reservation: 24 * time.Hour}
}

// TooManyError says that a registry is as it should be, and holds more tasks than
// the configuration allows.
type TooManyError struct{ Have, Allowed int }

func (e *TooManyError) Error() string {
	return fmt.Sprintf("max-tasks: %d tasks are registered here, and %d are allowed; allow at least %d, or remove "+
		"tasks before it is lowered", e.Have, e.Allowed, e.Have)
}

// Check refuses a snapshot that holds more than a node may state.
func (b Bounds) Check(s *Snapshot) error {
	tasks := 0
	for _, l := range s.networks {
		tasks += l.tasks.len()
	}
	if tasks > b.Tasks {
		return &TooManyError{tasks, b.Tasks}
	}
	if err := b.room(s, 0, 0, 0); err != nil {
		return err
	}
	if len(s.removed) > b.Removed {
		return fmt.Errorf("%d removed networks; at most %d", len(s.removed), b.Removed)
	}
	return nil
}

// room refuses to add so many networks, services and tasks.
func (b Bounds) room(s *Snapshot, networks, services, tasks int) error {
	networks += len(s.networks)
	for _, l := range s.networks {
		services += max(l.counts.len(), l.services.len())
		tasks += l.tasks.len()
	}
	refuse := func(what string, n, most int, hint string) error {
		return control.Refuse(control.CodeTooLarge, hint, "%s: this node would have %d, and at most %d are allowed", what, n,
			most)
	}
	switch {
	case networks > b.Networks:
		return refuse("networks", networks, b.Networks,
			"remove networks that are not used (meshctl network rm), or use another node")
	case services > b.Services:
		return refuse("services", services, b.Services,
			"register services on several nodes; one without tasks counts until its reservation is over")
	case tasks > b.Tasks:
		return refuse("tasks", tasks, b.Tasks, "remove tasks, or raise max-tasks in the configuration of this node")
	}
	return nil
}
