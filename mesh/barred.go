package mesh

import (
	"context"
	"fmt"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
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

func barredTexts(c *gossip.Core) []string {
	es, more := barredTasks(c)
	out := make([]string, 0, len(es)+1)
	for _, e := range es {
		out = append(out, fmt.Sprintf("task %s of service %s in network %s on node %s: %s", e.Task, e.Service, e.Network, e.Node, e.Detail))
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
	var disbelief state.Disbelief
	var full string
	if k.n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		es, _ = barredTasks(c)
		disbelief, full = c.Store().Disbelieved(), c.Store().Full()
	}) != nil {
		return
	}
	now := make(map[string]bool, len(es))
	for _, e := range es {
		id := e.Network + " " + e.Task + " " + e.Node + " " + e.Detail
		if now[id] = true; !k.barred[id] {
			k.n.log.Warn("task not served", "network", e.Network, "service", e.Service, "task", e.Task, "node", e.Node, "detail", e.Detail)
			k.n.emit(e)
		}
	}
	k.barred = now
	text := ""
	if disbelief.Count > k.disbelieved {
		text = disbelief.String()
	}
	if k.disbelieved = disbelief.Count; k.n.notices.set("disbelief", text) && text != "" {
		k.n.log.Warn("claims about this node are not believed", "detail", text)
	}
	if k.n.notices.set("full", full) && full != "" {
		k.n.log.Warn("the tables fill up", "detail", full)
	}
}

// barredOf returns the tasks of a service that are carried and not served here.
func (n *Node) barredOf(ctx context.Context, network, service string) []control.Task {
	var out []control.Task
	_ = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		t := c.Store().Table(network)
		if t == nil {
			return
		}
		for _, b := range t.Barred() {
			if b.Endpoint.Group() == service {
				task := control.FromEndpoint(network, b.Endpoint.Endpoint(), state.Hidden)
				task.Reason = b.Reason
				out = append(out, task)
			}
		}
	})
	return out
}
