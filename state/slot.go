package state

// This file owns the slots of a table: what changes about a record while its
// entries stay as they are.

// slot is the place of one record in a table: of one kind and key of one owner.
// The owner's stream finds it by its key and sets current; everything else
// belongs to the index. An endpoint that moves to another service gets a new slot,
// so that all that is ever in one belongs to one service.
//
// Invariant: if row > 0, addrIndex.rows[row] is the endpoint that readers see.
// It differs from current between a change and its publication.
type slot struct {
	current *Entry // what the owner states; nil: nothing any more
	row     uint32 // of the published endpoint in addrIndex; 0: none is published
	shown   Class  // under which the published endpoint is a member of its service
	bar     Bar    // why the current endpoint is not to be shown here (S18)
	hidden  bool   // the current endpoint is counted in serviceState.hidden
	queued  bool   // the slot is in serviceState.queue
}

// readable returns the current entry if the index knows it, else nil: a record that
// is not readable is carried and not shown (G8).
func (sl *slot) readable() *Entry {
	if sl.current == nil || sl.current.poison {
		return nil
	}
	return sl.current
}

// class is the class of the current endpoint under its owner's liveness.
func (sl *slot) class() Class {
	if sl.bar != BarNone {
		return Hidden
	}
	e := sl.current
	switch e.stream.status {
	case Alive:
		return e.class
	case Suspected, Kept:
		if e.class == Serving {
			return Suspect
		}
		return e.class
	}
	return Hidden
}

// slot returns the slot that the record of e has in its stream now, or nil.
// Other than e, it may have a successor of e as its current entry.
func (e *Entry) slot() *slot { return e.stream.live[e.mapKey()] }
