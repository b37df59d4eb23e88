package mesh

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
)

// reloadable are the settings that a running node takes over. Of all others
// sockets, files, programmed rules or what other nodes were told hang on the value
// that it started with.
var reloadable = []string{
	"dns-clients", "join", "key-file", "log-level", "max-tasks", "reservation", "table-memory",
	"upstream",
}

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
func (n *Node) Reload(ctx context.Context, cfg Config) (Reloaded, error) {
	s, err := cfg.settle()
	if err != nil {
		return Reloaded{}, err
	}
	was := n.current()
	next := *was
	next.Join, next.DNSClients, next.dnsClients = s.Join, s.DNSClients, s.dnsClients
	next.Upstream, next.upstream, next.upstreams = s.Upstream, s.upstream, s.upstreams
	next.MaxTasks, next.Reservation, next.TableMemory, next.LogLevel = s.MaxTasks, s.Reservation, s.TableMemory, s.LogLevel
	if err := next.bounds().Check(n.reg.Snapshot()); err != nil {
		return Reloaded{}, configError{err}
	}
	if err := n.dns.SetUpstreams(next.upstream, next.upstreams); err != nil {
		return Reloaded{}, configError{fmt.Errorf("upstream: %w", err)}
	}
	limits, reservation := next.limits(), next.bounds().Reservation
	if err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		c.Store().SetLimits(limits)
		c.SetReservation(reservation)
	}); err != nil { // all or nothing
		return Reloaded{}, errors.Join(err, n.dns.SetUpstreams(was.upstream, was.upstreams))
	}
	var r Reloaded
	keysChanged := n.reloadKeys(s, &next, &r)
	n.live.Store(&next)
	n.host.SetJoin(next.Join)
	n.seeds.set(next.Join)
	if len(n.cfg.dns) > 0 {
		n.dns.SetClients(n.dnsClients())
	}
	for _, name := range differing(&was.Config, &s.Config) {
		switch {
		case name == "key-file":
		case slices.Contains(reloadable, name):
			r.Changed = append(r.Changed, name)
		default:
			r.Waiting = append(r.Waiting, name)
		}
	}
	if keysChanged {
		r.Changed = append(r.Changed, "key-file")
	}
	slices.Sort(r.Changed)
	return r, nil
}

// current is the configuration with what was changed since the start. It must not
// be changed.
func (n *Node) current() *settled { return n.live.Load() }

// differing returns the names of the settings that differ, sorted.
func differing(a, b *Config) (names []string) {
	flags := func(c *Config) *flag.FlagSet {
		f := flag.NewFlagSet("", flag.ContinueOnError)
		c.RegisterFlags(f)
		return f
	}
	of := flags(b)
	flags(a).VisitAll(func(f *flag.Flag) {
		if f.Value.String() != of.Lookup(f.Name).Value.String() {
			names = append(names, f.Name)
		}
	})
	return names
}

// reloadKeys takes over the key file and reports whether that changed anything.
func (n *Node) reloadKeys(s, next *settled, r *Reloaded) (changed bool) {
	ring := n.host.Keyring()
	if ring == nil || len(s.keys) == 0 {
		if (ring == nil) != (len(s.keys) == 0) {
			r.Waiting = append(r.Waiting, "key-file")
		}
		return false
	}
	changed, err := n.keys.reload(ring, s.keys, n.host.Isolation() != "")
	if err != nil {
		r.Notes = append(r.Notes, "key-file: "+err.Error())
		return changed
	}
	next.KeyFile, next.keys = s.KeyFile, s.keys
	if d := n.keys.differs(s.KeyFile); d != "" {
		r.Notes = append(r.Notes, d)
	}
	return changed
}

// reload takes over what the key file holds by now, if somebody has changed it since
// it was read: keys that the ring lacks are added to it, so that a file that is
// distributed to all hosts is as good as meshctl key install. A file that is as it
// was brings nothing back that the mesh has removed since. Which key encrypts, and
// which ones go, is decided for all nodes at once (G9); a node that is alone cuts
// nobody off, and takes the file's first.
func (k *keystore) reload(ring keyRing, keys [][]byte, alone bool) (changed bool, err error) {
	from := fromOf(keys)
	k.mu.Lock()
	asRead, taken := k.file.From == from, k.taken == from
	k.mu.Unlock()
	if asRead && !taken {
		return false, nil
	}
	for _, key := range keys {
		if slices.ContainsFunc(ring.GetKeys(), func(have []byte) bool { return bytes.Equal(have, key) }) {
			continue
		}
		if err := k.change(ring, keyInstall, key); err != nil {
			return changed, fmt.Errorf("key %s: %w", control.KeyID(key), err)
		}
		changed = true
	}
	if alone && !bytes.Equal(ring.GetKeys()[0], keys[0]) {
		if err := k.change(ring, keyUse, keys[0]); err != nil {
			return changed, fmt.Errorf("key %s: %w", control.KeyID(keys[0]), err)
		}
		changed = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.configured, k.unread, k.taken, k.file.From = keys, nil, from, from
	if asRead {
		return changed, nil
	}
	return changed, k.dir.save(fileKeys, k.file)
}
