package mesh

import (
	"context"
	"fmt"
	"strings"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/mesh/notice"
	"meshd/state"
)

// barredShown is how many tasks that are not served status and events name at
// most: a hostile peer may state any number.
const barredShown = 20

// barredTasks says which tasks of living nodes are carried and not served here,
// and why (S18).
func barredTasks(c *gossip.Core) (out []control.Event, more int) {
	for _, t := range c.Store().Tables() {
		for _, b := range t.Barred() {
			if len(out) == barredShown {
				more++
				continue
			}
			e := b.Endpoint
			out = append(out, control.Event{
				Type: control.EventServiceConflict, Network: t.Network(), Service: e.Group(), Task: e.ID(), Node: string(e.Owner()),
				Detail: "the task is not served: " + b.Reason,
			})
		}
	}
	return out, more
}

func barredTexts(es []control.Event, more int) []string {
	out := make([]string, 0, len(es)+1)
	for _, e := range es {
		out = append(out, fmt.Sprintf("task %s of service %s in network %s on node %s: %s", e.Task, e.Service, e.Network,
			e.Node, e.Detail))
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("%d more tasks are not served", more))
	}
	return out
}

// conditions tells, when it changes, what peers state that this node does not
// take at its word.
func (k *chores) conditions(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	var es []control.Event
	var more int
	var disbelief state.Disbelief
	var full string
	if k.n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		es, more = barredTasks(c)
		disbelief, full = c.Store().Disbelieved(), c.Store().Full()
	}) != nil {
		return
	}
	now := time.Now()
	k.noteBarred(now, es, more)
	text := ""
	if disbelief.Count > k.disbelieved {
		text = disbelief.String()
	}
	k.disbelieved = disbelief.Count
	if k.note(now, &k.disbelief, "disbelief", text) {
		k.n.log.Warn("claims about this node are not believed", "detail", text)
	}
	if k.note(now, &k.full, "full", full) {
		k.n.log.Warn("the tables fill up", "detail", full)
	}
}

// note shows a condition in the status, and reports whether to tell of it, since
// it changed.
func (k *chores) note(now time.Time, p *notice.Condition, key, text string) bool {
	k.n.notices.Set(key, text)
	p.Text = text
	return p.Due(now)
}

// noteBarred tells when it changes which tasks are not served: their number in
// the log, and an event for each that is new.
func (k *chores) noteBarred(now time.Time, es []control.Event, more int) {
	k.unserved.Text = strings.Join(barredTexts(es, more), "; ")
	due := k.unserved.Due(now)
	if len(es) == 0 {
		k.barred = nil
	}
	if !due {
		return
	}
	first := es[0]
	k.n.log.Warn("tasks not served", "count", len(es)+more,
		"network", first.Network, "service", first.Service, "task", first.Task, "node", first.Node, "detail", first.Detail)
	told := k.barred
	k.barred = make(map[string]bool, len(es))
	for _, e := range es {
		id := e.Network + " " + e.Task + " " + e.Node + " " + e.Detail
		if k.barred[id] = true; !told[id] {
			k.n.emit(e)
		}
	}
}
