//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
)

// perHost bounds the tasks of a host that come and go.
const perHost = 4

// runTask starts a task and registers it. The error is of the machine; that
// the daemon did not answer is noted in the book.
func (c *cluster) runTask(ctx context.Context, m *member, service, id string, anchor bool) (*fleet.Task, error) {
	where, err := m.Host.AddTask(id)
	if err != nil {
		return nil, err
	}
	t := &fleet.Task{Task: where, Node: m.Node, Network: network, Service: service, ID: id, Slot: 1 +
		len(c.book.all(func(*entry) bool { return true }))}
	if err := t.Serve(ctx); err != nil {
		return nil, err
	}
	e := &entry{task: t, host: m.index, anchor: anchor, status: gone}
	c.book.add(e)
	err = c.book.set(e, serving, func() error {
		_, err := m.API.AddTask(ctx, addTask(t))
		return err
	})
	if anchor {
		return t, err
	}
	return t, nil
}

// worker adds, drains and removes tasks on hosts whose daemon runs, until ctx
// ends.
type worker struct {
	*cluster
	rng *rand.Rand
	n   int // tasks made
}

func (w *worker) run(ctx context.Context) error {
	for {
		select {
		case <-time.After(time.Duration(100+w.rng.IntN(500)) * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
		if err := w.step(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// step makes one change. It is not interrupted: stopping the worker waits for it.
func (w *worker) step(ctx context.Context) error {
	m := w.members[w.rng.IntN(len(w.members))]
	choice := w.rng.IntN(10)
	if !m.isUsable() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	mine := w.book.all(func(e *entry) bool {
		return e.host == m.index && !e.anchor && (e.status == serving || e.status == draining)
	})
	if w.rng.IntN(25) == 0 {
		return w.twins(ctx)
	}
	if len(mine) == 0 || choice < 4 && len(mine) < perHost {
		w.n++
		service := []string{web, api, names}[w.rng.IntN(3)]
		_, err := w.runTask(ctx, m, service, fmt.Sprintf("t%d-%s-%s", w.n, service, m.Host.Name), false)
		return err
	}
	e := mine[w.rng.IntN(len(mine))]
	switch {
	case choice < 7 && w.book.snapshot(e).status == serving:
		w.drain(ctx, m, e)
	default:
		w.remove(ctx, m, e, choice == 9)
	}
	return nil
}

// twins starts a new service on two hosts at once, which may not see each
// other: it must have one VIP in the end.
func (w *worker) twins(ctx context.Context) error {
	w.n++
	service := fmt.Sprintf("twin%d", w.n)
	for _, i := range w.rng.Perm(len(w.members))[:2] {
		m := w.members[i]
		if !m.isUsable() {
			continue
		}
		if _, err := w.runTask(ctx, m, service, fmt.Sprintf("t%d-%s-%s", w.n, service, m.Host.Name), false); err != nil {
			return err
		}
	}
	return nil
}

// drain takes a task out of its service for new clients.
func (w *worker) drain(ctx context.Context, m *member, e *entry) {
	_ = w.book.set(e, draining, func() error {
		_, err := m.API.DrainTask(ctx, control.TaskRef{ID: e.task.ID, Network: network})
		return err
	})
}

// remove unregisters a task and ends its server: at once if rude, else after
// everybody had the time to learn of it. A daemon that does not say whether it
// did so leaves the server running.
func (w *worker) remove(ctx context.Context, m *member, e *entry, rude bool) {
	err := w.book.set(e, gone, func() error {
		_, err := m.API.RemoveTask(ctx, control.TaskRef{ID: e.task.ID, Network: network})
		return err
	})
	switch {
	case err != nil:
	case rude:
		w.bury(e)
	default:
		time.AfterFunc(2*spreading, func() { w.bury(e) })
	}
}

// bury ends the server of a task that is gone.
func (w *worker) bury(e *entry) {
	w.book.mu.Lock()
	server := e.task.Server
	if e.status == gone {
		e.task.Server = nil
	} else {
		server = nil // its host registered it again
	}
	w.book.mu.Unlock()
	if server != nil {
		server.Kill()
	}
}
