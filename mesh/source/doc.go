// Package source is between what finds tasks (definition files, a container engine,
// a script) and what registers them: the types that a source hands over, and the
// Sink that takes them (N10).
//
// A source hands over whole units: all tasks of a container, of a file, of a set of a
// script. What of it is new, changed or gone is the sink's to find out, so a source
// keeps no account of what it has stated before, and handing over the same unit twice
// changes nothing. A source that knows that it has handed over all units that there
// are says so once (Synced); until then the sink holds what a former life of the node
// stated for it.
//
// The package has no goroutine, no disk and no clock. It imports the types of the API,
// because a task is asked for in the same words, and checked by the same constructor
// (control.AddTask), whoever asks. sourcetest has a sink in memory.
package source

import (
	"context"

	"meshd/mesh/control"
	"meshd/state"
)

// The kinds of origins that meshd has.
const (
	API    = "api"    // a person or a script, by the control API
	File   = "file"   // a definition file
	Docker = "docker" // a container engine
)

// The bounds of what one origin may hand over (N5). Besides, all tasks of a node are
// bounded by max-tasks.
const (
	MaxUnits    = 65_536   // units of all origins
	MaxTasks    = 10_000   // tasks of one unit
	MaxName     = 255      // bytes of the name of a unit
	MaxLocation = 300      // bytes of the location of a task
	MaxChecks   = 64 << 10 // bytes of the definitions of the checks of one task
	MaxVerdicts = 4096     // verdicts of one call
)

// Unit names what a source hands over as a whole.
type Unit struct {
	Origin string // the kind of the source: API, File, Docker
	Name   string // unique in the origin, for people: "web-1", "web.yaml"; "" for the API's single tasks
}

// Task is one task of a unit.
type Task struct {
	// AddTask is what is asked for. An empty ID stands for one that the sink derives
	// from the unit and from what tells the task from the others of it (its network,
	// service, slot, addresses and ports), so that it is the same each time.
	control.AddTask
	// Location says where in the source the task stands, for people: "web.yaml:12". It
	// is shown in place of the unit's name; empty: that name.
	Location string
	// Health is that of a task that is new. A task that is registered keeps the last
	// verdict (SetHealth), whatever is handed over. A source of tasks with checks hands
	// them over as state.HealthStarting, so that none is served before its first check.
	Health state.Health
	// Checks are the definitions of the task's checks, in the encoding of the package
	// that runs them. The sink keeps them on disk with the task and gives them to the
	// Watcher; it does not look into them.
	Checks []byte
}

// Ref names a registered task. Ids are unique in a network.
type Ref struct {
	Network string
	ID      string
}

// Outcome says what became of one task of a unit.
type Outcome struct {
	ID     string // of the task, given or derived
	Change Change
	// Err says why the task waits: another origin states its id or its place, or its
	// network is not known, or a bound is reached. The sink tries again by itself. It is
	// an *control.Error, or nil.
	Err error
}

// Change is what became of a task.
type Change uint8

// The changes.
const (
	Unchanged Change = iota // it was registered, as it is now
	Added                   // it is registered now
	Changed                 // it was registered, and was otherwise
	Waiting                 // it is not registered, or not as it is asked for now; Outcome.Err says why
)

// Verdict is the health of one task, as whoever checks it finds it.
type Verdict struct {
	Ref    Ref
	Health state.Health
}

// Sink takes what sources hand over. Its methods are safe for concurrent use and
// return when what they did is on disk and stated, or soon after ctx ends. One source
// calls Replace and Keep for one unit at a time.
type Sink interface {
	// Replace makes the tasks of a unit the given ones. None means that the unit is
	// gone. A task that cannot be registered at the moment waits, and says so in its
	// Outcome, which is at the place of the task; the others of the unit do not wait for
	// it. A task that waits keeps what is registered under its id. An error means that
	// nothing of the unit was changed: it is an *control.Error of CodeInvalid for a task
	// that can never be registered (a source that says where its errors are has parsed each
	// before), of CodeTooLarge for one bound or another, of CodeUnavailable while the
	// disk takes nothing: then the source hands it over again later. The sink keeps
	// neither tasks nor what they point to.
	Replace(ctx context.Context, unit Unit, tasks []Task) ([]Outcome, error)
	// Keep says that a unit is still there and cannot be read at the moment: what it
	// stated last stays, over Synced, too.
	Keep(ctx context.Context, unit Unit) error
	// Synced says that all units of an origin have been handed over or kept in this
	// life of the node. What was held of others is removed. It may be said again.
	Synced(ctx context.Context, origin string) error
	// SetHealth states verdicts. A task that is not registered (any more) is passed
	// over. A verdict needs no disk: it is stated while the disk is full or hangs, and
	// saved when it can be, so that a restart begins with the last one.
	SetHealth(ctx context.Context, verdicts []Verdict) error
}

// Registered is a task as the sink has it.
type Registered struct {
	Ref      Ref
	Unit     Unit
	Endpoint state.Endpoint // with its health; the zero value if the task is gone
	Checks   []byte         // not to be changed
	Gone     bool           // it is not registered any more
}

// Watcher is told of every task that is registered, whatever its origin: those with
// checks are its business.
type Watcher interface {
	// Registered is called with what is new, changed or gone, in the order in which it
	// was stated, by one goroutine at a time, and first with everything that a former
	// life left. It must not wait for anything, the Sink included, and owns the slice.
	Registered(changes []Registered)
}
