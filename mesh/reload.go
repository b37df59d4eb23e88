package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/mesh/config"
)

// Reloaded says what came of Reload, by the names of settings.
type Reloaded struct {
	Changed []string // in effect now
	Waiting []string // other than at the start, and in effect from the next one on
	Notes   []string // what else a person should know
}

// Reload takes over what can be changed of a running node: what to join, keys, DNS
// upstreams and clients, limits. The level of the log is its caller's. The error
// says why the configuration is refused; nothing is changed then. Not to be called
// from several goroutines at once.
func (n *Node) Reload(ctx context.Context, cfg config.Config) (Reloaded, error) {
	s, err := cfg.Check()
	if err != nil {
		return Reloaded{}, err
	}
	was := n.current()
	next, changed, waiting := was.TakeOver(s)
	if err := boundsOf(next).Check(n.reg.Snapshot()); err != nil {
		return Reloaded{}, config.Invalid(err)
	}
	if err := n.dns.SetUpstreams(next.Servers, next.DomainServers); err != nil {
		return Reloaded{}, config.Invalid(fmt.Errorf("upstream: %w", err))
	}
	limits, reservation := next.Limits(), boundsOf(next).Reservation
	if err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		c.Store().SetLimits(limits)
		c.SetReservation(reservation)
	}); err != nil { // all or nothing
		return Reloaded{}, errors.Join(err, n.dns.SetUpstreams(was.Servers, was.DomainServers))
	}
	r := Reloaded{Changed: changed, Waiting: waiting}
	keysChanged := reloadKeys(n, s, next, &r)
	n.live.Store(next)
	n.host.SetJoin(next.Join)
	n.seeds.Set(next.Join)
	n.dns.RefreshClients()
	if keysChanged {
		r.Changed = append(r.Changed, "key-file")
	}
	slices.Sort(r.Changed)
	return r, nil
}

// current is the configuration with what was changed since the start. It must not
// be changed.
func (n *Node) current() *config.Settings { return n.live.Load() }

// reloadKeys takes over the key file and reports whether that changed anything.
func reloadKeys(n *Node, s, next *config.Settings, r *Reloaded) (changed bool) {
	ring := n.host.Keyring()
	if ring == nil || len(s.GossipKeys) == 0 {
		if (ring == nil) != (len(s.GossipKeys) == 0) {
			r.Waiting = slices.Insert(r.Waiting, 0, "key-file")
		}
		return false
	}
	changed, err := n.keys.Reload(ring, s.GossipKeys, n.host.Isolation() != "")
	if err != nil {
		r.Notes = append(r.Notes, "key-file: "+err.Error())
		return changed
	}
	next.KeyFile, next.GossipKeys = s.KeyFile, s.GossipKeys
	if d := n.keys.Difference(s.KeyFile); d != "" {
		r.Notes = append(r.Notes, d)
	}
	return changed
}
