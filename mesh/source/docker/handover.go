package docker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/source"
)

// beginHandovers hands over what has changed, and attaches sandboxes.
func (w *watch) beginHandovers(now time.Time, next *time.Time) {
	for _, e := range w.entries {
		w.beginAttach(e, now, next)
		if e.version == e.done || e.handing || w.handing >= maxHandovers {
			continue
		}
		if now.Before(e.retryAt) {
			earlier(next, e.retryAt)
			continue
		}
		w.handOver(e)
	}
}

// handOver hands a unit over, beside, with the verdict on it. A verdict alone is handed
// over alone: it needs no disk.
func (w *watch) handOver(e *entry) {
	unit := e.again || !sameTasks(e.want, e.stated)
	verdicts := e.verdicts()
	if !unit && len(verdicts) == 0 {
		e.done = e.version
		delete(w.pending, e.id)
		return
	}
	e.handing, e.again = true, false
	w.handing++
	m := handed{e: e, version: e.version, unit: unit, tasks: slices.Clone(e.want)}
	w.work.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, sinkLimit)
		defer cancel()
		if unit {
			var outcomes []source.Outcome
			outcomes, m.err = w.cfg.Sink.Replace(ctx, e.unit(), slices.Clone(m.tasks))
			for _, o := range outcomes {
				if o.Err != nil && !slices.Contains(m.waiting, o.Err.Error()) {
					m.waiting = append(m.waiting, o.Err.Error())
				}
			}
		}
		m.replaced = m.err == nil
		if len(verdicts) > 0 {
			m.err = errors.Join(m.err, w.cfg.Sink.SetHealth(ctx, verdicts))
		}
		w.tell(m)
	})
}

// handed takes in what became of a handover.
func (w *watch) handed(m *handed, now time.Time) {
	e := m.e
	e.handing = false
	e.trouble = ""
	if m.unit && m.replaced {
		e.stated = m.tasks
		if m.version == e.version {
			e.waiting = m.waiting
		}
	}
	switch {
	case m.err == nil:
		e.retries = 0
	case errors.Is(m.err, control.ErrInvalid):
		e.retries = 0
		if m.version == e.version {
			e.invalid = labelled(m.err)
		}
	default:
		e.retries++
		e.retryAt = now.Add(backoff(e.retries))
		e.trouble = "it cannot be registered: " + m.err.Error()
		return
	}
	e.done = max(e.done, m.version)
	delete(w.pending, e.id)
	w.forget(e)
}

// beginAttach attaches the sandbox of a container that asks for it, beside.
func (w *watch) beginAttach(e *entry, now time.Time, next *time.Time) {
	if w.cfg.Sandboxes == nil || !e.lives() || e.d.sandbox == nil || e.d.refused != "" ||
		e.attached.Equal(e.d.started) || e.attaching || w.attaches >= maxAttaches {
		return
	}
	if now.Before(e.attachAt) {
		earlier(next, e.attachAt)
		return
	}
	e.attaching = true
	w.attaches++
	started, req := e.d.started, *e.d.sandbox
	w.work.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, attachLimit)
		defer cancel()
		w.tell(attached{e, started, attach(ctx, w.cfg.Sandboxes, req)})
	})
}

// attach attaches a sandbox, unless it is attached.
func attach(ctx context.Context, boxes Sandboxes, req control.AttachSandbox) error {
	all, err := boxes.Sandboxes(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		if b := &all[i]; b.PID == req.PID && b.Name == req.Name && b.State != control.SandboxEnding {
			return nil
		}
	}
	_, err = boxes.AttachSandbox(ctx, req)
	return err
}

// attached takes in what became of an attachment.
func (w *watch) attached(m *attached, now time.Time) {
	e := m.e
	e.attaching = false
	if m.err == nil {
		e.attached, e.attempts, e.unboxed = m.started, 0, ""
		return
	}
	e.attempts++
	e.unboxed = "it is not attached as a sandbox: " + m.err.Error()
	// The sandbox of the life before may still be ending.
	e.attachAt = now.Add(min(100*time.Millisecond<<min(e.attempts-1, 8), lastDelay))
	w.forget(e)
}

// joined is a list of texts in one line.
func joined(texts []string) string { return strings.Join(texts, "; ") }
