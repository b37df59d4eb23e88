package registry

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// draft is a Snapshot that is being made of another one. It shares with the original
// what is not changed.
type draft struct {
	Snapshot
	ours  map[string]bool // networks that are copies, and may be changed
	dirty bool            // it differs from the original in what is on disk
}

// draft returns a draft of s. s does not change.
func (s *Snapshot) draft() *draft {
	return &draft{
		Snapshot: Snapshot{networks: maps.Clone(s.networks), removed: slices.Clip(s.removed)},
		ours:     map[string]bool{},
	}
}

// copied returns the node's part in a network as a copy that may be changed. It makes
// one if there is none.
func (d *draft) copied(name string) *localNetwork {
	old := d.networks[name]
	switch {
	case d.ours[name]:
		return old
	case old == nil:
		old = newLocalNetwork()
		d.networks[name] = old
	default:
		c := *old
		c.tasks, c.services = maps.Clone(old.tasks), maps.Clone(old.services)
		c.counts, c.places = maps.Clone(old.counts), maps.Clone(old.places)
		d.networks[name] = &c
	}
	d.ours[name] = true
	return d.networks[name]
}

func (d *draft) setTask(network, id string, t savedTask) {
	l := d.copied(network)
	if old, ok := l.tasks[id]; ok {
		l.count(id, old, -1)
	}
	l.tasks[id] = t
	l.count(id, t, 1)
	d.dirty = true
}

// removeTask removes a task. The last task of a service leaves a reservation that ends
// at until (V2).
func (d *draft) removeTask(network, id string, until time.Time) {
	service := d.networks[network].tasks[id].Service
	d.forgetTask(network, id)
	if l := d.networks[network]; l.counts[service] == 0 {
		c := l.services[service]
		c.until = until
		l.services[service] = c
	}
}

// forgetTask removes a task as if it had never been there.
func (d *draft) forgetTask(network, id string) {
	l := d.copied(network)
	if t, ok := l.tasks[id]; ok {
		delete(l.tasks, id)
		l.count(id, t, -1)
		d.dirty = true
	}
}

func (d *draft) setDef(network string, def *networkDef) {
	if old := d.networks[network]; old != nil && same(old.def, def) {
		return
	}
	d.copied(network).def = def
	d.dirty = true
}

func (d *draft) setCarried(network string, def *networkDef) {
	if old := d.networks[network]; old != nil && same(old.carried, def) {
		return
	}
	d.copied(network).carried = def
	d.dirty = true
}

func same(a, b *networkDef) bool { return a == b || a != nil && b != nil && *a == *b }

func (d *draft) setServices(network string, services map[string]savedClaim) {
	l := d.networks[network]
	if l == nil || maps.EqualFunc(services, l.services, savedClaim.equal) {
		return
	}
	d.copied(network).services = services
	d.dirty = true
}

func (d *draft) dropNetwork(name string) {
	if d.networks[name] != nil {
		delete(d.networks, name)
		delete(d.ours, name)
		d.dirty = true
	}
}

// hold counts sandboxes in or out of a network. They are on disk in sandboxes.json.
func (d *draft) hold(network string, by int) { d.copied(network).sandboxes += by }

// remember adds the removal of a network, in place of an earlier one of that name. If
// there are more than most, the oldest are forgotten.
func (d *draft) remember(r removedNetwork, most int) {
	out := slices.DeleteFunc(slices.Clone(d.removed), func(o removedNetwork) bool { return o.name == r.name })
	out = append(out, r)
	slices.SortStableFunc(out, func(a, b removedNetwork) int {
		return cmp.Compare(a.until.UnixNano(),
			b.until.UnixNano())
	})
	d.removed = out[max(len(out)-most, 0):]
	d.dirty = true
}

// changed reports whether the draft may differ from the original at all.
func (d *draft) changed() bool { return d.dirty || len(d.ours) > 0 }

// done returns the draft as a Snapshot. The draft must not be used after it.
func (d *draft) done() *Snapshot { return &Snapshot{networks: d.networks, removed: d.removed} }
