package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/internal/pool"
	"meshd/lb/nftconn"
	"meshd/state"
)

// transaction collects the element changes of some services. Nothing changes,
// in the kernel or in the driver, before run and keep.
type transaction struct {
	d        *Driver
	next     map[lb.Key]*entry // nil: the service goes
	uses     map[class]int     // by how much the use of a class changes
	del, add map[*nftables.Set][]nftables.SetElement
	cut      conntrack.Set // connections to delete
	retired  []class       // chains that go
}

// maxUnused bounds the class chains that wait for services of their size to
// come back.
const maxUnused = 64

func (d *Driver) newTransaction() *transaction {
	return &transaction{
		d: d, next: map[lb.Key]*entry{}, uses: map[class]int{},
		del: map[*nftables.Set][]nftables.SetElement{}, add: map[*nftables.Set][]nftables.SetElement{},
	}
}

// plan queues what turns the service's elements into those of svc; nil removes.
func (tx *transaction) plan(k lb.Key, svc *lb.Service) {
	old := tx.d.entries[k]
	if old == nil {
		old = &entry{}
	}
	next := &entry{svc: svc, there: svc != nil}
	if svc != nil {
		next.idle, next.quiet = idleIn(old.idle, svc), quietSince(old.quiet, svc, time.Now())
		next.slots = assignSlots(svc, old.slots)
		next.settings = settingsOf(svc, next.slots)
	}
	if len(next.slots) > 0 {
		next.class = tx.place(classOf(svc, len(next.slots)), old.class)
	}
	tx.diffSlots(k, old.slots, next.slots)
	tx.diffParked(k, old.settings.parked, next.settings.parked)
	tx.diffService(k, old, next)
	tx.cutConnections(k, old, svc)
	if len(old.slots) == 0 && len(next.slots) > 0 && k.Proto == state.UDP {
		// What the own host sent to no avail: conntrack would go on not to translate it.
		tx.cut.Add(k, pool.RefusedFlow(k))
	}
	if svc == nil {
		next = nil
	}
	tx.next[k] = next
}

// place picks the shard of a class: the old one, or the least used.
func (tx *transaction) place(want, old class) class {
	same := old
	same.shard = 0
	if same == want {
		return old
	}
	best, fewest := want, -1
	for shard := range uint32(maxShards) {
		c := want
		c.shard = shard
		n := tx.d.classes[c] + tx.uses[c]
		if fewest < 0 || n < fewest {
			best, fewest = c, n
		}
		if n <= 0 || c.hash { // hashing has no counter to share
			break
		}
	}
	return best
}

func (tx *transaction) maps(k lb.Key) (svc, eps *nftables.Set) {
	m := &tx.d.layout.maps[nftconn.FamilyIndex(k.VIP)]
	if k.AllPorts() {
		return m.all, m.allepsSet
	}
	return m.svc, m.eps
}

// diffSlots queues the slots that differ.
func (tx *transaction) diffSlots(k lb.Key, old, next []netip.AddrPort) {
	diffElements(tx, k, old, next, func(i int, a netip.AddrPort) (nftables.SetElement, bool) {
		if !a.IsValid() {
			return nftables.SetElement{}, false
		}
		return slotElement(k, i, a), true
	})
}

// diffParked queues the parked backends that differ.
func (tx *transaction) diffParked(k lb.Key, old, next []lb.Backend) {
	diffElements(tx, k, old, next, func(i int, b lb.Backend) (nftables.SetElement, bool) {
		if !b.Addr.IsValid() {
			return nftables.SetElement{}, false
		}
		e := slotElement(k, firstParked+i, b.Addr)
		e.Comment = parkedComment(b)
		return e, true
	})
}

// diffElements queues what differs between two lists of a service's backends;
// Element is for a place in the list, and false for an empty one. An element's
// value cannot be changed: it is deleted and added in the same transaction.
func diffElements[T comparable](tx *transaction, k lb.Key, old, next []T,
	element func(int, T) (nftables.SetElement, bool),
) {
	_, eps := tx.maps(k)
	for i := range max(len(old), len(next)) {
		var have, want T
		if i < len(old) {
			have = old[i]
		}
		if i < len(next) {
			want = next[i]
		}
		if have == want {
			continue
		}
		if e, ok := element(i, have); ok {
			e.Comment = ""
			tx.del[eps] = append(tx.del[eps], e)
		}
		if e, ok := element(i, want); ok {
			tx.add[eps] = append(tx.add[eps], e)
		}
	}
}

// diffService queues the service's own element, if it differs.
func (tx *transaction) diffService(k lb.Key, old, next *entry) {
	if old.there == next.there && old.class == next.class && old.settings.comment == next.settings.comment {
		return
	}
	svc, _ := tx.maps(k)
	if old.there {
		tx.del[svc] = append(tx.del[svc], serviceElement(k, old.class, ""))
		if old.class.slots > 0 {
			tx.uses[old.class]--
		}
	}
	if next.there {
		tx.add[svc] = append(tx.add[svc], serviceElement(k, next.class, next.settings.comment))
		if next.class.slots > 0 {
			tx.uses[next.class]++
		}
	}
}

// cutConnections records the connections that must not outlive the change: those of
// removed backends, and UDP to backends that now drain, which would otherwise
// be fed for ever by a client that keeps its port (L5). A backend that had none
// when it had no slots any more got none since: looking for them would cost a
// pass over conntrack's table.
func (tx *transaction) cutConnections(k lb.Key, old *entry, next *lb.Service) {
	if old.svc == nil {
		return
	}
	for _, b := range old.svc.Backends {
		var now lb.Backend
		kept := false
		if next != nil {
			now, kept = next.Backend(b.Addr)
		}
		switch {
		case !kept && !slices.Contains(old.idle, b.Addr):
			tx.cut.Add(k, b.Addr)
		case b.Weight > 0 && now.Weight == 0 && k.Proto == state.UDP:
			tx.cut.Add(k, b.Addr)
		}
	}
}

// idleIn returns those of the idle backends that have no slots in svc either.
func idleIn(idle []netip.AddrPort, svc *lb.Service) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(idle), func(a netip.AddrPort) bool {
		b, there := svc.Backend(a)
		return !there || b.Weight > 0
	})
}

// run sends the transaction. Deletions come first, so that a changed element
// is free before it is added; class chains come before what goes to them and
// go after it.
func (tx *transaction) run() error {
	c := tx.d.conn.Nftables
	for cl, n := range tx.uses {
		if _, there := tx.d.classes[cl]; !there && n > 0 {
			if err := tx.d.layout.addClass(c, cl); err != nil {
				return fmt.Errorf("encode class %s: %w", cl.name(), err)
			}
		}
	}
	if err := tx.retire(); err != nil {
		return fmt.Errorf("encode classes: %w", err)
	}
	err := errors.Join(nftconn.EachChunk(tx.del, c.SetDeleteElements), nftconn.EachChunk(tx.add, c.SetAddElements))
	if err != nil {
		return fmt.Errorf("encode elements: %w", err)
	}
	commit := tx.d.conn.Commit
	if tx.large() {
		commit = tx.d.conn.CommitLarge
	}
	err = commit()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: %w", lb.ErrDrift, err) // not what we wrote
	}
	return err
}

// large reports whether messages of all elements would cost more than it does to
// have none made.
func (tx *transaction) large() bool {
	elements := 0
	for _, all := range tx.add {
		elements += len(all)
	}
	return elements > nftconn.ElementsPerMessage
}

// retire queues the removal of the unused class chains, if there are many.
func (tx *transaction) retire() error {
	var unused []class
	for cl, n := range tx.d.classes {
		if n+tx.uses[cl] == 0 {
			unused = append(unused, cl)
		}
	}
	if len(unused) <= maxUnused {
		return nil
	}
	tx.retired = unused
	var errs []error
	for _, cl := range unused {
		errs = append(errs, tx.d.layout.delClass(tx.d.conn.Nftables, cl))
	}
	return errors.Join(errs...)
}

// keep makes the driver believe what run has written.
func (tx *transaction) keep() {
	for k, e := range tx.next {
		if e == nil {
			delete(tx.d.entries, k)
			continue
		}
		tx.d.entries[k] = e
	}
	for cl, n := range tx.uses {
		tx.d.classes[cl] += n // even 0: the chain stays until there are many such
	}
	for _, cl := range tx.retired {
		delete(tx.d.classes, cl)
	}
	tx.d.cut.Join(&tx.cut)
}
