package gossip

import (
	"time"

	"meshd/state"
)

// This file owns when the leftovers of an owner's former life are dropped: a new
// life may take a while to say in which networks it takes part.

// reaper drops what a new life of an owner left behind in networks that it does not
// name any more.
type reaper struct {
	*env

	due map[state.NodeID]time.Duration // when a new life has had its time, at most maxReaps
}

// reapAfter is how long a new life of an owner may take to say in which networks
// it takes part, before what it left behind in the others is dropped.
const reapAfter = 5 * time.Second

// maxReaps bounds how many owners may wait for that. The leftovers of the others
// are dropped when a peer says that it has dropped them, or with their owner.
const maxReaps = 1 << 14

// later has an owner's leftovers dropped after reapAfter.
func (r *reaper) later(owner state.NodeID) {
	if !r.waitsFor(owner) && len(r.due) >= maxReaps {
		r.Stats.ReapsDropped++
		return
	}
	r.due[owner] = r.now + reapAfter
}

// waitsFor reports whether an owner's leftovers are dropped later.
func (r *reaper) waitsFor(owner state.NodeID) bool {
	_, waits := r.due[owner]
	return waits
}

// run drops what is due.
func (r *reaper) run() {
	for owner, at := range r.due {
		if r.now >= at {
			delete(r.due, owner)
			r.store.DropAbandoned(owner)
		}
	}
}
