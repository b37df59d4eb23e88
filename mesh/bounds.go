package mesh

import (
	"fmt"
	"time"

	"meshd/mesh/control"
)

// bounds limit what one node states, whoever asks for it (N5). A peer's guard is
// the quota of S13, which is far above.
type bounds struct {
	networks    int // with something of this node in them, or carried by it
	services    int // with tasks or reservations on this node, over all networks
	tasks       int // over all networks
	removed     int // removals of networks that are stated
	sandboxes   int
	reservation time.Duration // how long a service without tasks keeps its VIP
}

// The bounds of one node.
const (
	maxNetworks  = 1024
	maxServices  = 65_536
	defaultTasks = 200_000 // unless max-tasks is set
	maxRemoved   = 1024
	maxSandboxes = 4096
)

func (s *settled) bounds() bounds {
	b := bounds{
		networks: maxNetworks, services: maxServices, tasks: defaultTasks, removed: maxRemoved, sandboxes: maxSandboxes,
		reservation: 24 * time.Hour,
	}
	if s.MaxTasks > 0 {
		b.tasks = s.MaxTasks
	}
	if s.Reservation > 0 {
		b.reservation = time.Duration(s.Reservation)
	}
	return b
}

// errTooMany is a registry that is as it should be, and more than this
// configuration allows.
type errTooMany struct{ have, allowed int }

func (e errTooMany) Error() string {
	return fmt.Sprintf("max-tasks: %d tasks are registered here, and %d are allowed; allow at least %d, or remove "+
		"tasks before it is lowered", e.have, e.allowed, e.have)
}

// check refuses a registry that holds more than a node may state.
func (b bounds) check(r *registry) error {
	tasks := 0
	for _, l := range r.networks {
		tasks += len(l.tasks)
	}
	if tasks > b.tasks {
		return errTooMany{tasks, b.tasks}
	}
	if err := b.room(r, 0, 0, 0); err != nil {
		return err
	}
	if len(r.removed) > b.removed {
		return fmt.Errorf("%d removed networks; at most %d", len(r.removed), b.removed)
	}
	return nil
}

// room refuses to add so many networks, services and tasks.
func (b bounds) room(r *registry, networks, services, tasks int) error {
	networks += len(r.networks)
	for _, l := range r.networks {
		services += max(len(l.counts), len(l.services))
		tasks += len(l.tasks)
	}
	refuse := func(what string, n, most int, hint string) error {
		return control.Refuse(control.CodeTooLarge, hint, "%s: this node would have %d, and at most %d are allowed", what, n,
			most)
	}
	switch {
	case networks > b.networks:
		return refuse("networks", networks, b.networks,
			"remove networks that are not used (meshctl network rm), or use another node")
	case services > b.services:
		return refuse("services", services, b.services,
			"register services on several nodes; one without tasks counts until its reservation is over")
	case tasks > b.tasks:
		return refuse("tasks", tasks, b.tasks, "remove tasks, or raise max-tasks in the configuration of this node")
	}
	return nil
}
