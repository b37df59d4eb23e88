//go:build linux

package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
)

// What the book knows of a task.
type status byte

const (
	serving status = iota
	draining
	gone   // not registered
	unsure // the owner did not say whether it did what it was asked
)

// entry is one task that was ever registered.
type entry struct {
	task    *fleet.Task
	host    int
	anchor  bool // never removed
	status  status
	asked   status // what an unsure entry was asked to become
	was     status // what an unsure entry was before
	added   time.Time
	changed time.Time // when it was last asked to drain or go, or lost
}

// book is what the owners registered: what every table must say.
type book struct {
	line *timeline

	mu      sync.Mutex // guards everything that follows
	entries []*entry
	vips    map[string]netip.Addr // of vip services, once known
}

func (b *book) add(e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.added = time.Now()
	b.entries = append(b.entries, e)
}

// set records that a task is about to change, before the owner is asked, and the
// outcome afterwards.
func (b *book) set(e *entry, to status, tell func() error) error {
	b.mu.Lock()
	e.was, e.asked, e.status, e.changed = e.status, to, unsure, time.Now()
	b.mu.Unlock()
	err := tell()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		e.status = to
	}
	e.changed = time.Now()
	return err
}

// all returns the entries that pick accepts.
func (b *book) all(pick func(*entry) bool) []*entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*entry
	for _, e := range b.entries {
		if pick(e) {
			out = append(out, e)
		}
	}
	return out
}

// forget records that a host's daemon lost its disk.
func (b *book) forget(host int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		if e.host == host && e.status != gone {
			e.status, e.changed = gone, time.Now()
		}
	}
}

// register gives a host that lost its disk its network and some of its tasks
// back: the anchors and every second other one.
func (b *book) register(ctx context.Context, m *member) error {
	mine := b.all(func(e *entry) bool { return e.host == m.index && e.task.Server != nil })
	for i, e := range mine {
		if !e.anchor && i%2 == 1 {
			continue
		}
		b.mu.Lock()
		e.status, e.was, e.asked = unsure, gone, serving
		b.mu.Unlock()
		err := poll(ctx, 15*time.Second, func() error {
			_, err := m.API.AddTask(ctx, addTask(e.task))
			return err
		})
		if err != nil {
			return fmt.Errorf("register %s again on %s: %w", e.task.ID, m.Host.Name, err)
		}
		b.mu.Lock()
		e.status, e.added = serving, time.Now()
		b.mu.Unlock()
	}
	return nil
}

func addTask(t *fleet.Task) control.AddTask {
	return control.AddTask{
		Network: t.Network, Service: t.Service, ID: t.ID, Slot: uint32(t.Slot), IPs: []string{t.Addr.String()},
		Ports:      []string{"http:80/tcp", "echo:80/udp"},
		SetService: control.SetService{Mode: modeOf(t.Service)},
	}
}

// resolveUnsure asks the owners about the tasks of which the book is unsure: either
// outcome is right.
func (b *book) resolveUnsure(ctx context.Context, members []*member) error {
	for _, m := range members {
		ts, err := m.API.Tasks(ctx, control.TaskFilter{Network: network})
		if err != nil {
			return err
		}
		b.mu.Lock()
		for _, e := range b.entries {
			if e.host == m.index && e.status == unsure {
				e.status = stated(ts, e)
			}
		}
		b.mu.Unlock()
	}
	return nil
}

// stated returns what the owner says of a task.
func stated(ts []control.Task, e *entry) status {
	i := slices.IndexFunc(ts, func(t control.Task) bool { return t.ID == e.task.ID })
	switch {
	case i < 0:
		return gone
	case ts[i].State == "draining":
		return draining
	}
	return serving
}

// vip returns the service's address, or the zero Addr if it is not known yet.
func (b *book) vip(service string) netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.vips[service]
}

// byAddr returns the task that has an address; addresses are never used twice.
func (b *book) byAddr(a netip.Addr) *entry {
	es := b.all(func(e *entry) bool { return e.task.Addr == a })
	if len(es) == 0 {
		return nil
	}
	return es[0]
}

// snapshot copies an entry's changing parts.
func (b *book) snapshot(e *entry) entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return *e
}
