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
	ours    map[string]bool     // networks that are copies, and may be changed
	touched map[record]struct{} // what may differ from the original on disk
	// everything is to be written, though there may be nothing.
	everything bool
}

// draft returns a draft of s. s does not change.
func (s *Snapshot) draft() *draft {
	return &draft{
		Snapshot: Snapshot{networks: maps.Clone(s.networks), removed: slices.Clip(s.removed)},
		ours:     map[string]bool{}, touched: map[record]struct{}{},
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
		d.networks[name] = old.copied()
	}
	d.ours[name] = true
	return d.networks[name]
}

// touch notes that something is to be written.
func (d *draft) touch(bucket, network, name string) {
	d.touched[record{bucket, network, name}] = struct{}{}
}

func (d *draft) setTask(network, id string, t *savedTask) {
	l := d.copied(network)
	if old, ok := l.tasks.get(id); ok {
		l.count(id, old, -1)
	}
	l.tasks.set(id, t)
	l.count(id, t, 1)
	d.touch(bucketTasks, network, id)
}

// removeTask removes a task. The last task of a service leaves a reservation that ends
// at until (V2).
func (d *draft) removeTask(network, id string, until time.Time) {
	t, ok := d.networks[network].tasks.get(id)
	if !ok {
		return
	}
	d.forgetTask(network, id)
	if l := d.networks[network]; l.counts.at(t.Service) == 0 {
		c := savedClaim{}
		if have := l.services.at(t.Service); have != nil {
			c = *have
		}
		c.until = until
		l.services.set(t.Service, &c)
		d.touch(bucketClaims, network, t.Service)
	}
}

// forgetTask removes a task as if it had never been there.
func (d *draft) forgetTask(network, id string) {
	l := d.copied(network)
	if t, ok := l.tasks.get(id); ok {
		l.tasks.remove(id)
		l.count(id, t, -1)
		d.touch(bucketTasks, network, id)
	}
}

func (d *draft) setDef(network string, def *networkDef) {
	if old := d.networks[network]; old != nil && same(old.def, def) {
		return
	}
	d.copied(network).def = def
	d.touch(bucketNetworks, network, "")
}

func (d *draft) setCarried(network string, def *networkDef) {
	if old := d.networks[network]; old != nil && same(old.carried, def) {
		return
	}
	d.copied(network).carried = def
	d.touch(bucketNetworks, network, "")
}

func same(a, b *networkDef) bool { return a == b || a != nil && b != nil && *a == *b }

// setServices makes the claims of a network's services the given ones.
func (d *draft) setServices(network string, services map[string]*savedClaim) {
	l := d.networks[network]
	if l == nil {
		return
	}
	var gone []string
	for s := range l.services.all() {
		if services[s] == nil {
			gone = append(gone, s)
		}
	}
	for _, s := range gone {
		d.copied(network).services.remove(s)
		d.touch(bucketClaims, network, s)
	}
	for s, c := range services {
		if have := l.services.at(s); have == nil || !have.equal(c) {
			d.copied(network).services.set(s, c)
			d.touch(bucketClaims, network, s)
		}
	}
}

func (d *draft) dropNetwork(name string) {
	l := d.networks[name]
	if l == nil {
		return
	}
	delete(d.networks, name)
	delete(d.ours, name)
	for id := range l.tasks.all() {
		d.touch(bucketTasks, name, id)
	}
	for s := range l.services.all() {
		d.touch(bucketClaims, name, s)
	}
	d.touch(bucketNetworks, name, "")
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
	forgotten := max(len(out)-most, 0)
	for i := range out[:forgotten] {
		d.touch(bucketRemoved, out[i].name, "")
	}
	d.touch(bucketRemoved, r.name, "")
	d.removed = out[forgotten:]
}

// changed reports whether the draft may differ from the original at all.
func (d *draft) changed() bool { return len(d.touched) > 0 || len(d.ours) > 0 || d.everything }

// done returns the draft as a Snapshot. The draft must not be used after it.
func (d *draft) done() *Snapshot { return &Snapshot{networks: d.networks, removed: d.removed} }
