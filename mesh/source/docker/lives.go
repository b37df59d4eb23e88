package docker

import (
	"errors"
	"os"
	"time"
)

// watchProcess watches the process of a container that runs. It reports whether the
// container may be served now; else it is looked at again.
func (w *watch) watchProcess(e *entry, now time.Time) bool {
	l := e.life()
	switch {
	case l == e.ended: // the engine does not know yet
		e.failures++
		w.mark(e, now.Add(backoff(e.failures)/4))
		w.replan(e)
		return false
	case l == e.watched && (e.process != nil || w.blind || e.unseen == 0):
		return true // a second look found the same one, so it is the one
	}
	if l != e.watched {
		w.unwatch(e)
		e.watched, e.unseen = l, 0
	}
	p, err := w.cfg.Processes(l.pid, l.started)
	switch {
	case errors.Is(err, os.ErrProcessDone) && !w.blind:
		if e.unseen++; e.unseen < 3 {
			w.mark(e, now.Add(200*time.Millisecond))
			return false
		}
		w.blind = true // the engine is sure, so its processes have other numbers here
		return true
	case err != nil:
		return true // the engine alone tells the end
	}
	w.blind, e.unseen, e.process = false, 0, p
	w.work.Go(func() {
		select {
		case <-p.Died():
			w.tell(ended{e, p})
		case <-w.ctx.Done():
		}
	})
	if !p.Sure() {
		w.mark(e, now)
		return false
	}
	return true
}

// unwatch ends the watching of a container's process.
func (w *watch) unwatch(e *entry) {
	if e.process != nil {
		_ = e.process.Close()
	}
	e.process, e.watched = nil, life{}
}

// processEnded takes a container out at once, by the kernel's word.
func (w *watch) processEnded(e *entry, p Process, now time.Time) {
	if e.process != p {
		return
	}
	e.ended = e.watched
	e.ends++
	w.unwatch(e)
	e.plan()
	w.mark(e, now)
}
