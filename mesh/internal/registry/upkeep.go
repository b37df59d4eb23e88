package registry

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// upkeep keeps what the node states in line with the mesh, once a second and when it
// is woken: definitions of networks (V6), claims and reservations on disk (V2), its
// own streams after another node had its name (S7). A round in which nothing changed
// costs one look. It belongs to one goroutine; wake is safe for concurrent use.
type upkeep struct {
	r      *Registry
	woken  chan struct{}        // capacity 1: look at once
	wokeAt time.Time            // of the last look that did not wait for its second
	seen   inputs               // what the last round of networks was about
	saved  map[string]ownStream // of each network, as its claims were last written
	stated map[string]ownStream // of each network, as its tasks were last stated
}

// inputs are what reconcile depends on.
type inputs struct {
	defs   *state.Definitions
	reg    *Snapshot
	joined string // networks, separated by spaces
	synced bool
	info   state.NodeInfo
	life   uint64 // incarnation: what an earlier one stated may be overwritten by a namesake (S7)
}

// ownStream identifies a state of the node's own stream in a network.
type ownStream struct {
	table *state.Table
	head  state.Head
}

func newUpkeep(r *Registry) *upkeep {
	return &upkeep{r: r, woken: make(chan struct{}, 1), saved: map[string]ownStream{}, stated: map[string]ownStream{}}
}

// wake makes the next round begin at once.
func (k *upkeep) wake() {
	select {
	case k.woken <- struct{}{}:
	default:
	}
}

// The pace of upkeep.
const (
	roundEvery   = time.Second
	restateEvery = 10                     // rounds
	wakeEvery    = 100 * time.Millisecond // at most
	roundLimit   = 30 * time.Second       // that one part may wait for the core, or for the disk
)

func (k *upkeep) run(ctx context.Context) {
	tick := time.NewTicker(roundEvery)
	defer tick.Stop()
	for ticks := 0; ; {
		k.networks(ctx)
		k.claims(ctx)
		k.verdicts(ctx)
		ticked, ok := k.wait(ctx, tick.C)
		if !ok {
			return
		}
		if !ticked {
			continue
		}
		if ticks++; ticks%restateEvery == 0 {
			k.restate(ctx)
		}
	}
}

// wait returns when there is reason to look again; ok is false when ctx has ended.
func (k *upkeep) wait(ctx context.Context, tick <-chan time.Time) (ticked, ok bool) {
	rest := time.NewTimer(wakeEvery - time.Since(k.wokeAt))
	defer rest.Stop()
	woken := (<-chan struct{})(nil)
	for {
		select {
		case <-ctx.Done():
			return false, false
		case <-rest.C:
			woken = k.woken
		case <-woken:
			k.wokeAt = time.Now()
			return false, true
		case <-tick:
			return true, true
		}
	}
}

func (k *upkeep) logError(what string, err error) {
	if err != nil {
		k.r.log.Warn("chore not done, tried again", "what", what, "error", err)
	}
}

// networks makes the node's statements in the global scope what they should be:
// its own networks, the definitions of those it takes part in, its address.
// Networks that were removed or are no longer used are left.
func (k *upkeep) networks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	var now *situation
	at := k.seen
	err := k.r.do(ctx, func(c Core) {
		if c.Yielded() || c.Left() {
			return // another node has our name, or we said goodbye: we state nothing (S7, S9)
		}
		joined, _ := c.Store().Networks()
		synced := c.Store().Global().View().Synced()
		at = inputs{
			c.Store().Definitions(), k.r.Snapshot(), strings.Join(joined, " "), synced, k.r.cfg.Info(),
			c.Store().Incarnation(),
		}
		if at != k.seen {
			now = &situation{at.defs, joined, synced, k.r.cfg.KeepNetworks}
		}
	})
	if err != nil || now == nil {
		k.r.cfg.Looked(nil, nil)
		return
	}
	k.r.cfg.Looked(now.defs, now.joined)
	var s consequences
	err = k.r.change(ctx, &update{
		edit: func(d *draft) error {
			s = reconcile(d, now, k.r.cfg.Bounds(), time.Now())
			return nil
		},
		prepare: func(c Core) (bool, error) { return false, k.r.stateGlobals(c, s) },
	})
	if k.logError("networks", err); err != nil {
		return // the update may not be over: what it writes is not ours to read
	}
	k.seen = at
	for _, name := range s.lost {
		k.r.log.Info("network removed", "network", name)
	}
}

// stateGlobals makes the node's own statements in the global scope the given ones.
func (r *Registry) stateGlobals(c Core, s consequences) error {
	for _, name := range s.leave {
		r.check(c.LeaveNetwork(name))
	}
	node := state.Change{Kind: state.KindNode, Body: string(state.AppendNode(nil, r.cfg.Info()))}
	return c.Commit("", append(namedChanges(c.Store(), s.global), node))
}

// claims writes the claims that the node carries to disk when they changed, so
// that a restart keeps every VIP (V2), and forgets reservations that are over.
func (k *upkeep) claims(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	have, at := map[string]map[string]*savedClaim{}, map[string]ownStream{}
	err := k.r.do(ctx, func(c Core) {
		if c.Yielded() {
			return
		}
		for name := range k.r.Snapshot().networks {
			t := c.Store().Table(name)
			if t == nil {
				continue
			}
			head, _ := t.Head(k.r.cfg.Self)
			if at[name] = (ownStream{t, head}); at[name] != k.saved[name] {
				have[name] = claimsOf(t)
			}
		}
	})
	if err != nil {
		return
	}
	if len(have) > 0 {
		err = k.r.change(ctx, &update{edit: func(d *draft) error {
			for name, services := range have {
				d.keepClaims(name, services)
			}
			return nil
		}})
	}
	if k.logError("claims", err); err == nil {
		k.saved = at
	}
}

// restate makes the node's streams say what is registered, whatever happened to
// them: after another node had its name (S7), for example. Only this node writes its
// stream, unless the stream is of another incarnation: only then is there anything
// to do.
func (k *upkeep) restate(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	err := k.r.do(ctx, func(c Core) {
		if c.Yielded() {
			clear(k.stated)
			return
		}
		s := k.r.Snapshot() // within the step: nothing that is newer has been stated
		maps.DeleteFunc(k.stated, func(name string, _ ownStream) bool { return s.networks[name] == nil })
		for _, name := range slices.Sorted(maps.Keys(s.networks)) {
			t := c.Store().Table(name)
			if at := k.life(t); s.networks[name].used() && (t == nil || at != k.stated[name]) {
				k.r.restateNetwork(c, name, s.networks[name])
				k.stated[name] = k.life(c.Store().Table(name))
			}
		}
	})
	k.logError("registrations", err)
}

// life identifies a life of the node's own stream in a table, or none.
func (k *upkeep) life(t *state.Table) ownStream {
	if t == nil {
		return ownStream{}
	}
	head, _ := t.Head(k.r.cfg.Self)
	return ownStream{t, state.Head{Inc: head.Inc}}
}

func (r *Registry) restateNetwork(c Core, name string, l *localNetwork) {
	if err := c.JoinNetwork(name); err != nil {
		r.check(err)
		return
	}
	var cs []state.Change
	for _, e := range c.Store().Table(name).Own(state.KindEndpoint) {
		if !l.tasks.has(e.Key()) {
			cs = append(cs, state.Change{Kind: state.KindEndpoint, Key: e.Key(), Delete: true})
		}
	}
	hostAll(c, name, l)
	for id, t := range l.tasks.all() {
		cs = append(cs, t.change(id))
	}
	r.verdicts.apply(name, cs)
	r.check(c.Commit(name, cs))
}
