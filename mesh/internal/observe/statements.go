// Package observe says what peers state and this node does not take at its word: tasks
// that it does not serve, claims about itself that it does not believe, tables that fill
// up, services without an address.
//
// What is seen is a value that is taken from the tables in one step of the core; what is
// made of it is pure. A Reporter owns what was reported last. The package reads tables
// and views, and writes to a notice.Board, the log and the events.
package observe

import (
	"fmt"

	"meshd/mesh/control"
	"meshd/state"
)

// maxUnserved is how many tasks that are not served status and events name at most: a
// hostile peer may state any number.
const maxUnserved = 20

// Statements are what peers state and this node does not take at its word.
type Statements struct {
	Unserved  []control.Event // tasks of living nodes that are carried and not served here, and why (S18)
	More      int             // further ones
	Disbelief state.Disbelief // claims about this node
	Full      string          // which tables fill up; "": none
}

// Look returns the statements in a store. It is called within a step of the core.
func Look(s *state.Store) Statements {
	out := Statements{Disbelief: s.Disbelieved(), Full: s.Full()}
	for _, t := range s.Tables() {
		for _, b := range t.Barred() {
			if len(out.Unserved) == maxUnserved {
				out.More++
				continue
			}
			e := b.Endpoint
			out.Unserved = append(out.Unserved, control.Event{
				Type: control.EventServiceConflict, Network: t.Network(), Service: e.Group(), Task: e.ID(), Node: string(e.Owner()),
				Detail: "the task is not served: " + b.Reason,
			})
		}
	}
	return out
}

// UnservedTexts are the tasks that are not served, for people.
func (s *Statements) UnservedTexts() []string {
	out := make([]string, 0, len(s.Unserved)+1)
	for _, e := range s.Unserved {
		out = append(out, fmt.Sprintf("task %s of service %s in network %s on node %s: %s", e.Task, e.Service, e.Network,
			e.Node, e.Detail))
	}
	if s.More > 0 {
		out = append(out, fmt.Sprintf("%d more tasks are not served", s.More))
	}
	return out
}
