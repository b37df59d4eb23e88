package box

import (
	"sync"

	"meshd/mesh/sandbox"
)

// record is what a sandbox writes down of itself. It is safe for concurrent use.
//
// A sandbox that is being attached is first begun: should this life end, the next one
// takes it down. Then it is kept: the next life serves it.
type record struct {
	save func() error // writes sandboxes.json

	mu    sync.Mutex // guards what follows
	saved Saved
	added []string // networks in which this life has registered its task
	begun bool     // the namespace may have been changed
	kept  bool     // it is, or is to be, in sandboxes.json as one to be served
	down  bool     // it was taken down
}

// load returns the record.
func (r *record) load() Saved {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.saved
}

// isKept reports whether the next life is to serve the sandbox.
func (r *record) isKept() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept
}

// file returns what sandboxes.json is to hold, and whether anything. A sandbox that is
// being attached has no task yet.
func (r *record) file() (Saved, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.saved
	if !r.kept {
		s.Ending, s.Service, s.Task = true, "", ""
	}
	return s, r.kept || r.begun
}

// begin writes down that the namespace is about to be changed.
func (r *record) begin() error {
	r.mu.Lock()
	r.begun = true
	r.mu.Unlock()
	return r.save()
}

// keep writes down that the sandbox is to be served from now on.
func (r *record) keep(conf *sandbox.ResolvConf) error {
	r.mu.Lock()
	r.kept, r.saved.ResolvConf = true, conf
	r.mu.Unlock()
	return r.save()
}

// change changes the record, and writes it down if the sandbox is kept.
func (r *record) change(f func(s *Saved)) error {
	r.mu.Lock()
	f(&r.saved)
	kept := r.kept
	r.mu.Unlock()
	if !kept {
		return nil
	}
	return r.save()
}

// registered notes that the task is registered in a network.
func (r *record) registered(network string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.added = append(r.added, network)
}

// registeredIn returns the networks in which this life has registered the task.
func (r *record) registeredIn() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.added
}

// endLater leaves the end of a sandbox, of which only a part may be there, to the next
// life.
func (r *record) endLater() error {
	r.mu.Lock()
	r.kept, r.saved.Ending = true, true
	if len(r.added) == 0 { // a task of that id is another sandbox's
		r.saved.Service, r.saved.Task = "", ""
	}
	r.mu.Unlock()
	return r.save()
}

// remove says that the sandbox was taken down. It writes nothing.
func (r *record) remove() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun, r.kept, r.down = false, false, true
}

// gone reports that the sandbox was taken down.
func (r *record) gone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}
