package registry

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/store"
	"meshd/state"
)

// update is one change of the registry and of what follows from it.
type update struct {
	// What is to be done. The caller fills these.

	// edit changes the draft, or refuses. It must not wait for anything. On an
	// error it must have left the draft as it was.
	edit func(d *draft) error
	// prepare is called in a step of the core once the draft is on disk, before
	// changes are committed; nil: there is nothing to do. asked says that it asked for
	// settings or an address: the next update of that service must see them committed.
	prepare func(c Core) (asked bool, err error)
	// undo takes back the edit if prepare or the commit fails; nil: the edit stays.
	undo func(d *draft)

	network string         // where changes are committed; "" is the global scope
	service string         // what prepare is about, or ""
	changes []state.Change // committed after prepare

	// parts are further updates, which edit has made: they are stated and undone each by
	// itself. They have no edit.
	parts []*update
	// refused is called with the error of a part that could not be stated; nil: nobody
	// wants to know.
	refused func(err error)

	// How far it is. These belong to change and to the writer.

	claimed atomic.Bool   // set by whoever comes first: the writer, or a caller that leaves
	err     error         // the outcome, once done is closed
	done    chan struct{} // closed by the writer
}

// The bounds of the writer.
const (
	maxWaiting = 1024 // updates in the queue; callers with more of them wait
	maxGroup   = 512  // updates of one write
)

// change makes an update and returns when it is on disk and stated. If ctx ends while
// the update waits for its turn, it is not made; if ctx ends later, the error says that
// it may be made. After an error the functions of the update may be running: what they
// write may be read only if change returns nil.
func (r *Registry) change(ctx context.Context, u *update) error {
	u.done = make(chan struct{})
	select {
	case r.queue <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ended:
		return ErrStopped
	}
	select {
	case <-u.done:
		return u.err
	case <-ctx.Done():
		if u.claimed.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		return control.Refuse(control.CodeTimeout,
			"meshctl task ls says what came of it; meshctl status, whether the disk works",
			"the change is still being written: %v", ctx.Err())
	case <-r.ended:
		if u.claimed.CompareAndSwap(false, true) {
			return ErrStopped
		}
		<-u.done
		return u.err
	}
}

// runWriter makes updates until ctx ends.
func (r *Registry) runWriter(ctx context.Context) {
	defer close(r.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-r.queue:
			r.group(ctx, r.take(u))
		}
	}
}

// take claims the first update and the updates that wait behind it.
func (r *Registry) take(first *update) []*update {
	group := make([]*update, 0, len(r.queue)+1)
	for u := first; ; {
		if u.claimed.CompareAndSwap(false, true) {
			group = append(group, u)
		}
		if len(group) == maxGroup {
			return group
		}
		select {
		case u = <-r.queue:
		default:
			return group
		}
	}
}

// group makes updates in one write and one step of the core.
func (r *Registry) group(ctx context.Context, us []*update) {
	defer func() {
		for _, u := range us {
			close(u.done)
		}
	}()
	d, edited := r.Snapshot().draft(), make([]*update, 0, len(us))
	for _, u := range us {
		if u.err = u.edit(d); u.err == nil {
			edited = append(edited, u)
		}
	}
	if err := r.install(d); err != nil {
		r.failures.Add(1)
		for _, u := range edited {
			u.err = control.Refuse(control.CodeUnavailable, "free space or fix the data directory, then try again",
				"it could not be written: %v", err)
		}
		return
	}
	r.changes.Add(uint64(len(edited)))
	for _, u := range edited {
		edited = append(edited, u.parts...)
	}
	r.state(ctx, edited)
	if slices.ContainsFunc(edited, func(u *update) bool { return u.service != "" }) {
		r.upkeep.wake() // the claims that follow are to be on disk soon
	}
	r.undo(edited)
	r.tell(d)
}

// install writes a draft and makes it the current snapshot.
func (r *Registry) install(d *draft) error {
	if !d.changed() {
		return nil
	}
	s := d.done()
	if len(d.touched) > 0 || d.everything {
		r.writes.Add(1)
		if err := r.save(d, s); err != nil {
			return err
		}
	}
	r.current.Store(s)
	return nil
}

// save writes what a draft touched, as s has it, to the store.
func (r *Registry) save(d *draft, s *Snapshot) error {
	now := time.Now()
	changes := make([]store.Change, 0, len(d.touched))
	for what := range d.touched {
		changes = append(changes, s.encode(what, now))
	}
	sortChanges(changes)
	return r.cfg.Store.Write(changes, func() []store.Change { return s.encodeAll(now) })
}

func sortChanges(all []store.Change) {
	slices.SortFunc(all, func(a, b store.Change) int {
		return cmp.Or(cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.Key, b.Key))
	})
}

// state states what is on disk now, in one step of the core.
func (r *Registry) state(ctx context.Context, us []*update) {
	err := r.cfg.Publisher.Do(ctx, func(c Core) {
		s := statement{verdicts: &r.verdicts}
		for _, u := range us {
			s.add(c, u)
		}
		s.flush(c)
	})
	for _, u := range us {
		if u.refused != nil && u.err != nil {
			u.refused(u.err)
		}
	}
	if err != nil {
		for _, u := range us {
			u.err = err
		}
	}
}

// undo takes back what could not be stated: over a quota, or because another node has
// this one's name, or because this one ends.
func (r *Registry) undo(us []*update) {
	d := r.Snapshot().draft()
	for _, u := range us {
		if u.err != nil && u.undo != nil {
			u.undo(d)
		}
	}
	if err := r.install(d); err != nil {
		r.log.Error("a registration that was refused is still on disk, and is tried again at the next start", "error", err)
	}
}
