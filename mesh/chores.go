package mesh

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// chores keep what the node carries in line with the table, once a second and
// when they are asked to: network definitions (V6), reservations (V2), what is
// on disk. They belong to one goroutine. What did not change costs a look.
type chores struct {
	n           *Node
	due         chan struct{} // capacity 1: to look at once
	seen        glance        // what the last round was about
	kept        map[string]ownStream
	said        map[string]ownStream
	barred      map[string]bool // tasks not served, as last told
	unserved    paced           // the same, as text
	disputes    paced           // networks defined twice
	disbelief   paced           // claims about this node
	full        paced           // tables
	disbelieved uint64          // claims about this node, as last seen
	id          identity        // as it is on disk

	hurried time.Time   // when they last looked before their time
	again   atomic.Bool // node.json is to be written in any case
}

// glance is what reconcile depends on.
type glance struct {
	defs   *state.Definitions
	reg    *registry
	joined string
	synced bool
	info   state.NodeInfo
	life   uint64 // incarnation: what was stated in an earlier one may be overwritten by a namesake (S7)
}

// ownStream tells whether the node's own stream in a network is still what it was.
type ownStream struct {
	table *state.Table
	head  state.Head
}

func newChores(n *Node, id identity) *chores {
	return &chores{n: n, due: make(chan struct{}, 1), kept: map[string]ownStream{}, said: map[string]ownStream{}, id: id}
}

// hurry makes the chores look at once.
func (k *chores) hurry() {
	select {
	case k.due <- struct{}{}:
	default:
	}
}

// rewrite makes the chores write node.json again.
func (k *chores) rewrite() {
	k.again.Store(true)
	select {
	case k.n.reincarnated <- struct{}{}:
	default:
	}
}

func (k *chores) run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seconds := 0; ; {
		k.networks(ctx)
		k.claims(ctx)
		ticked, ok := k.wait(ctx, tick.C)
		if !ok {
			return nil
		}
		if !ticked {
			continue
		}
		if seconds++; seconds%10 == 0 {
			k.restate(ctx)
			k.conditions(ctx)
		}
		if seconds%30 == 0 {
			k.saveIdentity(ctx)
		}
	}
}

// hurryEvery is how often at most the chores look at once.
const hurryEvery = 100 * time.Millisecond

// wait returns when there is reason to look again; ok is false when ctx has ended.
func (k *chores) wait(ctx context.Context, tick <-chan time.Time) (ticked, ok bool) {
	rest := time.NewTimer(hurryEvery - time.Since(k.hurried))
	defer rest.Stop()
	due := (<-chan struct{})(nil)
	for {
		select {
		case <-ctx.Done():
			return false, false
		case <-k.n.reincarnated:
			k.saveIdentity(ctx)
		case <-rest.C:
			due = k.due
		case <-due:
			k.hurried = time.Now()
			return false, true
		case <-tick:
			return true, true
		}
	}
}

// choreLimit is how long one chore may wait for the core, or for the disk.
const choreLimit = 30 * time.Second

func (k *chores) tell(what string, err error) {
	if err != nil {
		k.n.log.Warn("chore not done, tried again", "what", what, "error", err)
	}
}

// networks makes the node's statements in the global scope what they should be:
// its own networks, the definitions of those it takes part in, its address.
// Networks that were removed or are no longer used are left.
func (k *chores) networks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	var now *situation
	var disputes string
	at := k.seen
	err := k.n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		if c.Yielded() || c.Left() {
			return // another node has our name, or we said goodbye: we state nothing (S7, S9)
		}
		joined, _ := c.Store().Networks()
		synced := c.Store().Global().View().Synced()
		at = glance{
			c.Store().Definitions(), k.n.reg.registry(), strings.Join(joined, " "), synced, k.n.info(),
			c.Store().Incarnation(),
		}
		if at != k.seen {
			now = &situation{at.defs, joined, synced, k.n.cfg.Networks}
			disputes = strings.Join(conflicts(c), "; ")
		}
	})
	if err == nil && now != nil {
		k.disputes.text = disputes
	}
	k.n.noteDisputes(&k.disputes)
	if err != nil || now == nil {
		return
	}
	var s stated
	err = k.n.reg.change(ctx, &update{
		edit: func(d *draft) error {
			s = reconcile(d, now, k.n.current().bounds(), time.Now())
			return nil
		},
		prepare: func(c *gossip.Core, now time.Duration) (bool, error) { return false, k.n.stateGlobals(c, now, s) },
	})
	if k.tell("networks", err); err != nil {
		return // the update may still be running: what it writes is not ours to read
	}
	k.seen = at
	for _, name := range s.lost {
		k.n.log.Info("network removed", "network", name)
	}
}

// stateGlobals makes the node's own statements in the global scope the given ones.
func (n *Node) stateGlobals(c *gossip.Core, now time.Duration, s stated) error {
	for _, name := range s.leave {
		n.check(c.LeaveNetwork(now, name))
	}
	node := state.Change{Kind: state.KindNode, Body: string(state.AppendNode(nil, n.info()))}
	return c.Commit(now, "", append(namedChanges(c.Store(), s.global), node))
}

// noteDisputes says so loudly, when it changes, but not with each change.
func (n *Node) noteDisputes(p *paced) {
	n.notices.set("networks", p.text)
	if p.due(time.Now()) {
		n.log.Error("network defined twice", "detail", p.text)
		n.emit(control.Event{Type: control.EventNetworkConflict, Detail: p.text})
	}
}

// claims writes the claims that the node carries to disk when they changed, so
// that a restart keeps every VIP (V2), and forgets reservations that are over.
func (k *chores) claims(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	have, at := map[string]map[string]savedClaim{}, map[string]ownStream{}
	err := k.n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		if c.Yielded() {
			return
		}
		for name := range k.n.reg.registry().networks {
			t := c.Store().Table(name)
			if t == nil {
				continue
			}
			head, _ := t.Head(c.Config().Self)
			if at[name] = (ownStream{t, head}); at[name] != k.kept[name] {
				have[name] = claimsOf(t)
			}
		}
	})
	if err != nil {
		return
	}
	if len(have) > 0 {
		err = k.n.reg.change(ctx, &update{edit: func(d *draft) error {
			for name, services := range have {
				d.keepClaims(name, services)
			}
			return nil
		}})
	}
	if k.tell("claims", err); err == nil {
		k.kept = at
	}
}

// retreating ends the key of a claim on an address that a service leaves (V5):
// that is over in half a minute, and not kept.
const retreating = "~"

// claimsOf copies the claims and settings that this node states in a network.
func claimsOf(t *state.Table) map[string]savedClaim {
	have := map[string]savedClaim{}
	for _, kind := range []state.Kind{state.KindVIP, state.KindSettings} {
		for _, e := range t.Own(kind) {
			if strings.HasSuffix(e.Key(), retreating) {
				continue
			}
			s := have[e.Key()]
			if kind == state.KindVIP {
				s.vip = []byte(e.Body())
			} else {
				s.settings = []byte(e.Body())
			}
			have[e.Key()] = s
		}
	}
	return have
}

// keepClaims takes over what the node states for its services.
func (d *draft) keepClaims(network string, have map[string]savedClaim) {
	l := d.networks[network]
	if l == nil {
		return
	}
	for s, c := range have {
		c.until = l.services[s].until
		have[s] = c
	}
	d.setServices(network, have)
}

// restate makes the node's streams say what is registered, whatever happened
// to them: after another node had its name (S7), for example. A stream is only
// ever written by this node, but in another incarnation: only then is there
// anything to do.
func (k *chores) restate(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	n := k.n
	err := n.host.Do(ctx, func(c *gossip.Core, now time.Duration) {
		if c.Yielded() {
			clear(k.said)
			return
		}
		r := n.reg.registry() // here: nothing that is newer has been stated
		maps.DeleteFunc(k.said, func(name string, _ ownStream) bool { return r.networks[name] == nil })
		for _, name := range slices.Sorted(maps.Keys(r.networks)) {
			t := c.Store().Table(name)
			if at := k.stream(c, t); r.networks[name].used() && (t == nil || at != k.said[name]) {
				n.restateNetwork(c, now, name, r.networks[name])
				k.said[name] = k.stream(c, c.Store().Table(name))
			}
		}
	})
	k.tell("registrations", err)
}

// stream identifies a life of the node's own stream in a table, or none.
func (k *chores) stream(c *gossip.Core, t *state.Table) ownStream {
	if t == nil {
		return ownStream{}
	}
	head, _ := t.Head(c.Config().Self)
	return ownStream{t, state.Head{Inc: head.Inc}}
}

func (n *Node) restateNetwork(c *gossip.Core, now time.Duration, name string, l *localNetwork) {
	if err := c.JoinNetwork(now, name); err != nil {
		n.check(err)
		return
	}
	var cs []state.Change
	for _, e := range c.Store().Table(name).Own(state.KindEndpoint) {
		if _, registered := l.tasks[e.Key()]; !registered {
			cs = append(cs, state.Change{Kind: state.KindEndpoint, Key: e.Key(), Delete: true})
		}
	}
	n.hostAll(c, name, l)
	for _, id := range slices.Sorted(maps.Keys(l.tasks)) {
		cs = append(cs, l.tasks[id].change(id))
	}
	n.check(c.Commit(now, name, cs))
}

// saveIdentity writes node.json if the incarnation or the clock moved.
func (k *chores) saveIdentity(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	id := k.id
	_ = k.n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		id.Incarnation = max(id.Incarnation,
			c.Store().Incarnation())
	})
	id.Lamport = k.n.host.Lamport()
	if id == k.id && !k.again.Swap(false) || id.check() != nil {
		return
	}
	if err := k.n.dir.save(fileNode, id); err == nil {
		k.id = id
	}
}
