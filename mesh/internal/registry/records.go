package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"meshd/mesh/internal/store"
)

// The buckets of the store. A key is a network, and what it is of it after a zero byte.
const (
	bucketNetworks = "networks" // networkFile, by network
	bucketTasks    = "tasks"    // savedTask, by network and id
	bucketClaims   = "claims"   // claimFile, by network and service
	bucketRemoved  = "removed"  // removedFile, by network
)

// record names one record of the store.
type record struct{ bucket, network, name string }

func (r record) key() string {
	if r.name == "" {
		return r.network
	}
	return r.network + "\x00" + r.name
}

// touchAll notes that everything is to be written.
func (d *draft) touchAll() {
	d.everything = true
	for name, l := range d.networks {
		d.touch(bucketNetworks, name, "")
		for id := range l.tasks.all() {
			d.touch(bucketTasks, name, id)
		}
		for s := range l.services.all() {
			d.touch(bucketClaims, name, s)
		}
	}
	for i := range d.removed {
		d.touch(bucketRemoved, d.removed[i].name, "")
	}
}

// encodeAll returns everything that is on disk, by bucket and key.
func (s *Snapshot) encodeAll(now time.Time) []store.Change {
	d := s.draft()
	d.touchAll()
	out := make([]store.Change, 0, len(d.touched))
	for what := range d.touched {
		if c := s.encode(what, now); c.Value != nil {
			out = append(out, c)
		}
	}
	sortChanges(out)
	return out
}

// encode returns a record as it is now, or its removal.
func (s *Snapshot) encode(what record, now time.Time) store.Change {
	c := store.Change{Bucket: what.bucket, Key: what.key()}
	if v := s.value(what, now); v != nil {
		c.Value, _ = json.Marshal(v) // of texts and numbers: it cannot fail
	}
	return c
}

// value returns what a record has, or nil if it is gone.
func (s *Snapshot) value(what record, now time.Time) any {
	if what.bucket == bucketRemoved {
		for i := range s.removed {
			if x := &s.removed[i]; x.name == what.network {
				return &removedFile{
					Name: x.name, Birth: x.birth, Lamport: x.lamport, Def: x.def, Saved: now.Round(0),
					Left: secondsLeft(x.until, now),
				}
			}
		}
		return nil
	}
	l := s.networks[what.network]
	if l == nil {
		return nil
	}
	switch what.bucket {
	case bucketNetworks:
		if l.def != nil || l.carried != nil {
			return &networkFile{Def: l.def, Carried: l.carried}
		}
	case bucketTasks:
		if t := l.tasks.at(what.name); t != nil {
			return t
		}
	case bucketClaims:
		if c := l.services.at(what.name); c != nil {
			return &claimFile{VIP: c.vip, Settings: c.settings, Saved: now.Round(0), Left: secondsLeft(c.until, now)}
		}
	}
	return nil
}

// add reads one record into the file. What it does not name is an error: nothing may be
// lost that a newer version wrote.
func (f *file) add(bucket, key string, value []byte) error {
	network, name, _ := strings.Cut(key, "\x00")
	if f.Networks[network] == nil && bucket != bucketRemoved {
		f.Networks[network] = &networkFile{Tasks: tasksFile{}, Services: map[string]claimFile{}}
	}
	n := f.Networks[network]
	var err error
	switch bucket {
	case bucketNetworks:
		err = json.Unmarshal(value, n)
	case bucketTasks:
		t := &savedTask{}
		err = json.Unmarshal(value, t)
		n.Tasks[name] = t
	case bucketClaims:
		c := claimFile{}
		err = json.Unmarshal(value, &c)
		n.Services[name] = c
	case bucketRemoved:
		r := removedFile{}
		err = json.Unmarshal(value, &r)
		f.Removed = append(f.Removed, r)
	default:
		return fmt.Errorf("bucket %q is not known", bucket)
	}
	if err != nil {
		return fmt.Errorf("the record %q of %s: %w", key, bucket, err)
	}
	return nil
}

// Read reads what former lives registered, and checks every record of it (N3).
// Statements of other nodes that an earlier version saved, though they cannot be right,
// are left out and described in leftOut. If the store holds more than b allows, the
// error is a *TooManyError: the store is intact and must not be moved away. If meshd
// cannot have written what it holds, it is a *CorruptError.
func Read(from Store, b Bounds, now time.Time) (s *Snapshot, leftOut []string, err error) {
	f := file{Networks: map[string]*networkFile{}}
	var bad error
	err = from.Read(func(bucket, key string, value []byte) error {
		if bad = f.add(bucket, key, value); bad != nil {
			bad = &CorruptError{bad}
		}
		return bad
	})
	if err != nil {
		return nil, nil, err
	}
	return f.read(b, now)
}

// ReadFile is Read of the file that versions before this one kept: load decodes it into
// its argument, or leaves that as it is if there is none.
func ReadFile(load func(v any) error, b Bounds, now time.Time) (s *Snapshot, leftOut []string, err error) {
	f := file{}
	if err := load(&f); err != nil {
		return nil, nil, err
	}
	return f.read(b, now)
}

func (f *file) read(b Bounds, now time.Time) (*Snapshot, []string, error) {
	s, err := f.snapshot(b, now)
	if err == nil {
		return s, f.leftOut, nil
	}
	if _, ok := errors.AsType[*TooManyError](err); !ok {
		err = &CorruptError{err}
	}
	return nil, nil, err
}
