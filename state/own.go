package state

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Commit writes changes to this node's own stream, one version each, and
// reports whether there was anything to write: a change that states what is
// already stated costs nothing, and of several for one record the last counts.
// On an error nothing was written (S1, S13).
func (t *Table) Commit(changes []Change) (bool, error) {
	if t.yielded {
		return false, fmt.Errorf("network %q: %w", t.network, ErrYielded)
	}
	s := t.own()
	changes = lastOfEach(changes)
	todo, err := t.admit(s, changes)
	if err != nil {
		return false, err
	}
	if t.committed != nil {
		t.committed(changes)
	}
	if len(todo) == 0 {
		return false, nil
	}
	t.touch(s, func() {
		for _, c := range todo {
			s.head.Version++
			r := Record{Kind: c.Kind, Key: c.Key, Version: s.head.Version, Deleted: c.Delete}
			if !c.Delete {
				r.Group, r.Body = c.Group, c.Body
			}
			t.put(s, t.entry(s, r))
		}
		t.trim(s)
	})
	return true, nil
}

// CommitEach writes what of the changes can be written, so that one that is
// refused blocks no other, and reports whether anything was. The errors are by
// the key of the record that was refused.
func (t *Table) CommitEach(changes []Change) (written bool, refused map[string]error) {
	changed, err := t.Commit(changes)
	if err == nil || errors.Is(err, ErrYielded) {
		return changed, nil
	}
	refused = map[string]error{}
	for i := range changes {
		changed, err := t.Commit(changes[i : i+1])
		if err != nil {
			refused[changes[i].Key] = err
		}
		written = written || changed
	}
	return written, refused
}

// admit returns the changes that change something, after checking them against
// the limits. What does not grow the stream is always admitted.
func (t *Table) admit(s *stream, changes []Change) (todo []Change, err error) {
	n, b := len(s.live), s.bytes
	grows := false
	for _, c := range changes {
		r := Record{Kind: c.Kind, Key: c.Key, Group: c.Group, Body: c.Body}
		old := s.current(c.Kind, c.Key)
		switch {
		case c.Delete && old == nil, !c.Delete && old != nil && old.Group() == c.Group && old.Body() == c.Body:
			continue
		case c.Delete:
			n--
			todo = append(todo, c)
			continue
		case c.Kind == 0 || len(c.Body) > MaxBody || len(c.Key) > MaxName || len(c.Group) > MaxName:
			return nil, invalid("record %q: kind %d, %d bytes; at most %d in the body and %d in a name", c.Key, c.Kind,
				len(c.Body), MaxBody, MaxName)
		}
		if _, err := newEntry(s, r); err != nil {
			return nil, invalid("record %q: %w", c.Key, err)
		}
		n, b = n+1, b+r.size()
		if old != nil {
			n, b = n-1, b-old.size()
		}
		grows = grows || old == nil || r.size() > old.size()
		todo = append(todo, c)
	}
	if err := s.admitNetworks(todo); err != nil {
		return nil, err
	}
	if grows && (n > t.limits.Entries || b > t.limits.Bytes) {
		return nil, fmt.Errorf("network %q: %w: at most %d records and %d bytes per node", t.network, ErrQuota,
			t.limits.Entries, t.limits.Bytes)
	}
	return todo, nil
}

// admitNetworks refuses more definitions of networks than others listen to.
func (s *stream) admitNetworks(changes []Change) error {
	more := 0
	for _, c := range changes {
		if c.Kind == KindNetwork && !c.Delete {
			more++
		}
	}
	if more == 0 {
		return nil
	}
	names := make(map[string]struct{}, more)
	for _, sl := range s.live {
		if e := sl.current; e.Kind() == KindNetwork {
			names[e.Key()] = struct{}{}
		}
	}
	for _, c := range changes {
		if c.Kind == KindNetwork {
			if names[c.Key] = struct{}{}; c.Delete {
				delete(names, c.Key)
			}
		}
	}
	if len(names) > maxNetworks {
		return fmt.Errorf("%w: at most %d networks per node; remove some that are not used", ErrQuota, maxNetworks)
	}
	return nil
}

// trim keeps the tombstones few (S6): above the limit the older half goes.
func (t *Table) trim(s *stream) {
	if len(s.dead) > t.limits.Tombstones {
		vs := s.tombstones()
		s.raiseFloor(vs[len(vs)-t.limits.Tombstones/2-1])
	}
}

// Forget raises the floor of this node's own stream over the tombstones up to
// version v and reports whether that changed the head (S6: by age).
func (t *Table) Forget(v uint64) bool {
	s := t.streams[t.self]
	if s == nil || t.yielded {
		return false
	}
	floor := uint64(0)
	for _, e := range s.dead {
		if e.version <= v {
			floor = max(floor, e.version)
		}
	}
	if floor <= s.head.Floor {
		return false
	}
	t.touch(s, func() { s.raiseFloor(floor) })
	return true
}

// Open makes this node's own, empty stream known: peers that still hold one of
// a former life replace it (S7).
func (t *Table) Open() { t.own() }

// own returns this node's own stream, which lives from incarnation t.inc on.
// Its first version is 1, the empty one.
func (t *Table) own() *stream {
	s := t.stream(t.self)
	if s.head.Inc == 0 {
		t.touch(s, func() { s.head = Head{Inc: t.inc, Version: 1, Floor: 1} })
		s.status = Alive
	}
	return s
}

// Reincarnate puts this node's own stream above an incarnation that the mesh
// has seen of it (S7): the same content, no tombstones, a new life.
func (t *Table) Reincarnate(inc uint64) {
	t.inc = max(t.inc, inc)
	s := t.streams[t.self]
	if s == nil || s.head.Inc >= inc || t.yielded {
		return
	}
	t.touch(s, func() {
		s.raiseFloor(s.head.Version)
		s.head.Inc = inc
	})
}

// SelfAhead reports whether a head that a peer holds of this node's own stream
// is one that this node did not write: ahead of it, or equal with other
// content (S7). What is too far ahead to be true is not believed (S16).
func (t *Table) SelfAhead(h Head) bool {
	if h.beyond() || !t.believesOwn(h.Inc) {
		return false
	}
	s := t.streams[t.self]
	if s == nil || s.head.Inc == 0 {
		return h.Inc >= t.inc
	}
	c := h.Compare(s.head)
	return c > 0 || c == 0 && h.Sum != s.head.Sum
}

// Leave makes this node's own stream its last, empty snapshot (S9: a graceful
// leave).
func (t *Table) Leave() {
	s := t.streams[t.self]
	if s == nil || t.yielded {
		return
	}
	t.touch(s, func() {
		t.clear(s)
		s.head.Version++
		s.head.Floor = s.head.Version
	})
}

// SetLiveness says what this node thinks of an owner and re-classes its
// endpoints if that changed (S9).
func (t *Table) SetLiveness(o NodeID, l Liveness) {
	s := t.streams[o]
	if s == nil || s.status == l {
		return
	}
	s.status = l
	for _, sl := range s.live {
		t.index.updateClass(sl)
	}
}

// SetOffered says whether an owner's stream is in the digests: not after it
// has been dead for D1 (S9).
func (t *Table) SetOffered(o NodeID, offered bool) {
	s := t.streams[o]
	if s == nil || s.offered == offered {
		return
	}
	if s.head.Inc > 0 {
		b := s.hash & (fineBuckets - 1)
		if offered {
			t.fine[b] += s.head.hash(s.hash)
		} else {
			t.fine[b] -= s.head.hash(s.hash)
		}
	}
	s.offered = offered
}

// Retire drops an owner's stream after D2 and remembers its head, so that no
// peer can bring it back (S9). Readmit forgets that, when the owner itself is
// heard of again.
func (t *Table) Retire(o NodeID) {
	s := t.streams[o]
	if s == nil || o == t.self {
		return
	}
	t.SetOffered(o, false)
	head := s.head
	t.clear(s)
	s.stage = nil
	t.account(s)
	delete(t.streams, o)
	if head.Inc > 0 {
		t.grave[o] = head
	}
}

// SelfRetired reports whether a peer has buried this node's own stream at a head
// above which it must go to be accepted there again (S9).
func (t *Table) SelfRetired(h Head) bool {
	own, ok := t.Head(t.self)
	return ok && own.Version > 0 && h.Inc >= own.Inc && !h.beyond() && t.believesOwn(h.Inc)
}

// Readmit forgets a buried head.
func (t *Table) Readmit(o NodeID) { delete(t.grave, o) }

// RetiredOwners returns the number of owners whose stream was retired.
func (t *Table) RetiredOwners() int { return len(t.grave) }

// Publish makes all changes visible to readers and returns how long until what
// was held back by the bounded rate of S14 is due; 0 if nothing was. now is
// any monotonic time.
func (t *Table) Publish(now time.Duration) time.Duration { return t.index.publish(now) }

// Unpublished reports whether something has changed that [Table.Publish] has not
// brought to the view yet.
func (t *Table) Unpublished() bool { return len(t.index.dirty)+len(t.index.nameOps) > 0 }

// SetSynced records that the first full exchange with a peer is done (R4).
func (t *Table) SetSynced() { t.index.setSynced() }

// SetDef installs the effective definition of the network (V6).
func (t *Table) SetDef(d NetworkDef) { t.index.setDef(d) }

// TakeClaims reports whether claims, settings or the definition changed since
// the last call: whoever carries claims should look at them again (V2).
func (t *Table) TakeClaims() bool {
	return t.index.takeClaimsChanged()
}

// Assignment returns what the claims give a service (V3).
func (t *Table) Assignment(service string) Assignment { return t.index.vips.assign(service) }

// Holder returns the service that has the address, whether it serves it or not,
// or "" (V3).
func (t *Table) Holder(a netip.Addr) string {
	if x, claimed := t.index.vips.byAddr[a]; claimed {
		return x.winner()
	}
	return ""
}

// ClaimedVIPs returns how many addresses of the IPv4 pool are claimed, served or
// not.
func (t *Table) ClaimedVIPs() uint64 { return t.index.vips.used }

// AddressFree reports whether no other service claims the address, hidden
// owners' claims included (V1).
func (t *Table) AddressFree(service string) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return t.index.vips.free(a, service) }
}

// Settings returns the effective settings of a service and whether any node
// states some (S8).
func (t *Table) Settings(service string) (SettingsClaim, bool) {
	c, _, ok := t.settings(service)
	return c, ok
}

// settings is Settings with the body in which the claim came.
func (t *Table) settings(service string) (c SettingsClaim, body string, ok bool) {
	s, _ := t.index.services.Load(service)
	if s == nil || len(s.settings) == 0 {
		return SettingsClaim{}, "", false
	}
	c, body = s.effective()
	return c, body, true
}

// Own returns this node's own live entries of a kind, sorted by key.
func (t *Table) Own(k Kind) []*Entry { return t.OwnerEntries(t.self, k) }

// OwnerEntries returns an owner's live entries of a kind, sorted by key;
// unreadable ones are left out.
func (t *Table) OwnerEntries(o NodeID, k Kind) []*Entry {
	s := t.streams[o]
	if s == nil {
		return nil
	}
	var es []*Entry // few of many, as a rule: only those are sorted
	for _, sl := range s.live {
		if e := sl.readable(); e != nil && e.Kind() == k {
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b *Entry) int { return strings.Compare(a.Key(), b.Key()) })
	return es
}

// WantNext returns what to ask any peer for to move an owner's stream on.
func (t *Table) WantNext(o NodeID) Want {
	if s := t.streams[o]; s != nil {
		return s.want()
	}
	return Want{Owner: o}
}

// OwnerLen returns the number of an owner's live records.
func (t *Table) OwnerLen(o NodeID) int {
	if s := t.streams[o]; s != nil {
		return len(s.live)
	}
	return 0
}
