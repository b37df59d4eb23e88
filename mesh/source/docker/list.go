package docker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// fullEvery is after how many lists all containers are looked at, not only those of
// which a list says something else than before.
const fullEvery = 10

// event takes an event as a sign that a container may have changed. Only its end, by the
// word of an engine whose processes cannot be watched, counts by itself: it must not wait
// for a look.
func (w *watch) event(m *happened, now time.Time) {
	id, action := subject(&m.message)
	if !isID(id) {
		return
	}
	e := w.entries[id]
	begins, ends := false, false
	switch action {
	case "start", "restart", "unpause":
		begins = true
	case "die", "died", "destroy", "remove":
		ends = true
	case "stop", "pause", "rename", "oom", "update", "health_status", "connect", "disconnect":
	default:
		return
	}
	if e == nil {
		if !begins || !mayBeOurs(m.message.Actor.Attributes) {
			return // it is foreign, or was never served
		}
		if e = w.add(id, now); e == nil {
			return
		}
	}
	e.lastEvent = now
	if ends {
		e.ends++
		if at := eventTime(&m.message); e.process == nil && e.lives() && !m.old && at.After(e.d.started) {
			e.ended = e.life()
			e.plan()
		}
	}
	w.mark(e, e.notBefore)
}

// subject returns the container that an event is about, and what happened to it.
func subject(m *events.Message) (id, action string) {
	action, _, _ = strings.Cut(string(m.Action), ":")
	switch m.Type {
	case events.ContainerEventType:
		if action == "connect" || action == "disconnect" {
			return "", ""
		}
		return m.Actor.ID, action
	case events.NetworkEventType:
		if action == "connect" || action == "disconnect" {
			return m.Actor.Attributes["container"], action
		}
	}
	return "", ""
}

// mayBeOurs says that the container of an event may be for meshd. Its labels are among
// the attributes of the event, unless there are none or the engine leaves them out.
func mayBeOurs(attributes map[string]string) bool {
	if hasLabel(attributes) {
		return true
	}
	for name := range attributes {
		if strings.ContainsRune(name, '.') {
			return false // there are labels, of others
		}
	}
	return true
}

// hasLabel says that one of the labels is for meshd.
func hasLabel(labels map[string]string) bool {
	for name := range labels {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// add adds a container; nil: there are too many.
func (w *watch) add(id string, now time.Time) *entry {
	if len(w.entries) >= maxContainers {
		return nil
	}
	e := &entry{id: id, since: now}
	w.entries[id] = e
	return e
}

// list compares all containers with what is known.
func (w *watch) list(m *listed, now time.Time) {
	w.lists++
	full := m.opened || w.lists%fullEvery == 0
	first := w.pending == nil
	if first {
		w.pending = map[string]bool{}
	}
	w.shorted = 0
	for i := range m.items {
		c := &m.items[i]
		if !isID(c.ID) || !hasLabel(c.Labels) {
			continue
		}
		e := w.entries[c.ID]
		if e == nil {
			if e = w.add(c.ID, now); e == nil {
				w.shorted++
				continue
			}
		}
		if first {
			w.pending[c.ID] = true
		}
		e.seenBy = w.lists
		if s := summary(c); s != e.summary || full || e.unsure() {
			if s != e.summary && !m.opened {
				e.byList = m.begun
			}
			e.summary = s
			w.mark(e, e.notBefore)
		}
		if len(e.waiting) > 0 { // the sink tries by itself; ask whether it could
			e.version++
			e.again = true
		}
	}
	for id, e := range w.entries {
		if e.seenBy != w.lists && e.summary != goneSummary && !e.lastEvent.After(m.begun) && !e.since.After(m.begun) {
			e.summary = goneSummary
			if !m.opened {
				e.byList = m.begun
			}
			w.mark(e, e.notBefore)
			continue
		}
		// One that has ended is found again by its start.
		if e.summary == goneSummary && e.seenBy != w.lists && !e.lives() && e.idle() {
			w.unwatch(e)
			delete(w.entries, id)
		}
	}
}

// goneSummary is the summary of a container that is not in a list of those that run.
const goneSummary = "gone"

// unsure says that a list does not show what the container depends on.
func (e *entry) unsure() bool {
	return e.d == nil || e.trouble != "" || e.d.dependent
}

// summary is all of a container in a list that matters: another one asks for a look.
func summary(c *container.Summary) string {
	var nets []string
	if c.NetworkSettings != nil {
		for name, n := range c.NetworkSettings.Networks {
			if n != nil {
				nets = append(nets, fmt.Sprint(name, n.IPAddress, n.GlobalIPv6Address))
			}
		}
	}
	slices.Sort(nets)
	health := ""
	if c.Health != nil {
		health = string(c.Health.Status)
	} else if i := strings.IndexByte(c.Status, '('); i >= 0 {
		health = c.Status[i:] // older engines say it for people only: "Up 3 minutes (healthy)"
	}
	ports := make([]string, 0, len(c.Ports))
	for _, p := range c.Ports {
		ports = append(ports, fmt.Sprint(p.IP, p.PrivatePort, p.PublicPort, p.Type))
	}
	slices.Sort(ports)
	return fmt.Sprintf("%s %q %q %s %q", c.State, c.Names, nets, health, ports)
}
