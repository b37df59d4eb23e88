package dockertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// events streams, first what is remembered since the time that was asked for. As a real
// engine, it sends the header before it subscribes.
func (e *Engine) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	since := sinceTime(r.URL.Query().Get("since"))
	s := &subscriber{wake: make(chan struct{}, 1)}
	e.mu.Lock()
	for _, m := range e.past {
		if !since.IsZero() && m.TimeNano >= since.UnixNano() {
			s.queue = append(s.queue, m)
		}
	}
	e.subscribed[s.wake] = s
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.subscribed, s.wake)
		e.mu.Unlock()
	}()
	out := json.NewEncoder(w)
	for {
		e.mu.Lock()
		queue, hang := s.queue, e.hang
		if hang == nil {
			s.queue = nil
		}
		e.mu.Unlock()
		for _, m := range queue {
			if hang == nil && out.Encode(m) != nil {
				return
			}
		}
		_ = flush.Flush()
		select {
		case <-s.wake:
		case <-hang: // blocks for ever if it does not hang
		case <-r.Context().Done():
			return
		}
	}
}

func sinceTime(text string) time.Time {
	seconds, nanos, _ := strings.Cut(text, ".")
	s, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}
	}
	n, _ := strconv.ParseInt(nanos, 10, 64) // none: 0
	return time.Unix(s, n)
}

// emit tells everybody of an event. e.mu is held.
func (e *Engine) emit(t events.Type, action events.Action, c *Container, more map[string]string) {
	attributes := map[string]string{"name": c.Name, "image": "test"}
	if !e.podman {
		maps.Copy(attributes, c.Labels)
	}
	maps.Copy(attributes, more)
	now := time.Now()
	m := events.Message{
		Type: t, Action: action, Actor: events.Actor{ID: c.ID, Attributes: attributes}, Time: now.Unix(),
		TimeNano: now.UnixNano(),
	}
	if t == events.NetworkEventType {
		m.Actor.ID = "net"
	}
	if e.podman && action == events.ActionDie {
		m.Action = "died"
	}
	if e.down || e.lose != nil && e.lose(m) {
		return
	}
	again := []events.Message{m}
	if e.repeat > 0 {
		again = append(slices.Clone(e.past[max(0, len(e.past)-3):]), m)
		for range e.repeat {
			again = append(again, m)
		}
	}
	if e.past = append(e.past, m); len(e.past) > ring {
		e.past = e.past[1:]
	}
	for wake, s := range e.subscribed {
		s.queue = append(s.queue, again...)
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// change changes a container and tells of it.
func (e *Engine) change(id string, action events.Action, f func(c *Container)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.find(id)
	if c == nil {
		panic(fmt.Errorf("%w: %s", errUnknown, id))
	}
	f(c)
	if action != "" {
		e.emit(events.ContainerEventType, action, c, nil)
	}
}

// Die ends a container's process, as a crash does.
func (e *Engine) Die(id string) {
	e.change(id, events.ActionDie, func(c *Container) {
		e.Processes.end(c.PID)
		c.State, c.PID = container.StateExited, 0
	})
}

// Stop stops a container: kill, die and stop.
func (e *Engine) Stop(id string) {
	e.change(id, events.ActionKill, func(*Container) {})
	e.Die(id)
	e.change(id, events.ActionStop, func(*Container) {})
}

// EndProcess ends a container's process, which the engine does not notice.
func (e *Engine) EndProcess(id string) {
	e.change(id, "", func(c *Container) { e.Processes.end(c.PID) })
}

// Pause pauses a container.
func (e *Engine) Pause(id string) {
	e.change(id, events.ActionPause, func(c *Container) { c.State = container.StatePaused })
}

// Unpause lets it go on.
func (e *Engine) Unpause(id string) {
	e.change(id, events.ActionUnPause, func(c *Container) { c.State = container.StateRunning })
}

// Restarting makes a container wait for its restart after its end.
func (e *Engine) Restarting(id string) {
	e.Die(id)
	e.change(id, "", func(c *Container) { c.State = container.StateRestarting })
}

// Rename renames a container.
func (e *Engine) Rename(id, name string) {
	e.change(id, events.ActionRename, func(c *Container) { c.Name = name })
}

// SetHealth makes the container's check find something.
func (e *Engine) SetHealth(id string, h container.HealthStatus) {
	e.change(id, events.Action("health_status: "+string(h)), func(c *Container) { c.Health = h })
}

// Change changes a container; nobody is told.
func (e *Engine) Change(id string, f func(c *Container)) { e.change(id, "", f) }

// Remove ends and removes a container.
func (e *Engine) Remove(id string) {
	e.Die(id)
	e.change(id, events.ActionDestroy, func(c *Container) { delete(e.containers, c.ID) })
}
