package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// file is tasks.json. It holds the durations that are left and the time of the save, and
// no points in time: a host whose clock was or is wrong frees no address by it (N3).
type file struct {
	Saved    time.Time               `json:"saved,omitzero"`
	Networks map[string]*networkFile `json:"networks"`
	Removed  []removedFile           `json:"removed,omitempty"`

	leftOut []string // what was not accepted, for people
}

type networkFile struct {
	Def      *networkDef          `json:"def,omitempty"`
	Carried  *networkDef          `json:"carried,omitempty"`
	Tasks    tasksFile            `json:"tasks,omitempty"`
	Services map[string]claimFile `json:"services,omitempty"`
}

// tasksFile are tasks by id. Most of a file consists of them, so they are encoded
// without reflection.
type tasksFile map[string]savedTask

// MarshalJSON implements json.Marshaler. Ids and services are labels: nothing in them
// needs to be escaped.
func (ts tasksFile) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 2+128*len(ts))
	for i, id := range slices.Sorted(maps.Keys(ts)) {
		if i == 0 {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		t := ts[id]
		b = append(append(b, '"'), id...)
		b = append(append(b, `":{"service":"`...), t.Service...)
		b = base64.StdEncoding.AppendEncode(append(b, `","body":"`...), t.Body)
		b = append(b, `"}`...)
	}
	if len(ts) == 0 {
		b = append(b, '{')
	}
	return append(b, '}'), nil
}

type claimFile struct {
	VIP      []byte    `json:"vip,omitempty"`
	Settings []byte    `json:"settings,omitempty"`
	Until    time.Time `json:"until,omitzero"` // for versions that do not know left
	Left     int64     `json:"left,omitempty"` // seconds of the reservation, at least 1 if there is one
}

type removedFile struct {
	Name    string    `json:"name"`
	Birth   uint64    `json:"birth"`
	Lamport uint64    `json:"lamport"`
	At      time.Time `json:"at,omitzero"` // for versions that do not know left
	Left    int64     `json:"left,omitempty"`
	Def     networkDef
}

// longestAway is how long a daemon may have been away by the clock. If the clock says
// more, it was or is wrong.
const longestAway = 60 * 24 * time.Hour

// passed returns how much time passed between the last save and now, by a clock that
// may be wrong at either. If it went back, or leapt, no time counts as passed.
func passed(saved, now time.Time) time.Duration {
	d := now.Round(0).Sub(saved) // by the wall clock: the monotonic clock was of another process
	if d < 0 || d > longestAway || saved.IsZero() {
		return 0
	}
	return d
}

// remaining turns a duration of the file into a time of this process. Files of
// earlier versions have a point in time instead.
func (f *file) remaining(left int64, until time.Time, most time.Duration, now time.Time) time.Time {
	rest := time.Duration(min(max(left, 0), int64(most/time.Second))) * time.Second
	if left == 0 && !until.IsZero() {
		rest = until.Sub(now.Round(0))
		if rest < 0 || rest > most { // over, or the clock is wrong: keep it
			rest = most
		}
		return now.Add(rest)
	}
	return now.Add(max(rest-passed(f.Saved, now), 0))
}

// encode writes the snapshot as tasks.json.
func (s *Snapshot) encode(now time.Time) ([]byte, error) {
	f := file{Saved: now.Round(0), Networks: make(map[string]*networkFile, len(s.networks))}
	for name, l := range s.networks {
		n := &networkFile{Def: l.def, Carried: l.carried, Tasks: l.tasks}
		if len(l.services) > 0 {
			n.Services = make(map[string]claimFile, len(l.services))
		}
		for s, c := range l.services {
			n.Services[s] = claimFile{VIP: c.vip, Settings: c.settings, Until: c.until.Round(0), Left: secondsLeft(c.until, now)}
		}
		f.Networks[name] = n
	}
	for i := range s.removed {
		x := &s.removed[i]
		f.Removed = append(f.Removed, removedFile{
			Name: x.name, Birth: x.birth, Lamport: x.lamport, Def: x.def,
			At: x.until.Add(-removalMemory).Round(0), Left: secondsLeft(x.until, now),
		})
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(&f)
	return b.Bytes(), err
}

// secondsLeft returns the seconds until a time, at least 1: 0 says that it has no end.
func secondsLeft(until, now time.Time) int64 {
	if until.IsZero() {
		return 0
	}
	return max(int64(until.Sub(now)/time.Second), 1)
}

// CorruptError says that tasks.json holds what meshd cannot have written.
type CorruptError struct{ Err error }

func (e *CorruptError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *CorruptError) Unwrap() error { return e.Err }

// Read reads what a former life registered, and checks every record of it (N3).
// Statements of other nodes that an earlier version saved, though they cannot be right,
// are left out and described in leftOut. If the file holds more than b allows, the error
// is a *TooManyError: the file is intact and must not be moved away. If meshd cannot
// have written the file, it is a *CorruptError.
func Read(store Store, b Bounds, now time.Time) (s *Snapshot, leftOut []string, err error) {
	f := file{}
	if err := store.Load(&f); err != nil {
		return nil, nil, err
	}
	if s, err = f.snapshot(b, now); err == nil {
		return s, f.leftOut, nil
	}
	if _, ok := errors.AsType[*TooManyError](err); !ok {
		err = &CorruptError{err}
	}
	return nil, nil, err
}

// snapshot checks the file with the checks for requests and for what peers state.
func (f *file) snapshot(lim Bounds, now time.Time) (*Snapshot, error) {
	r := &Snapshot{networks: map[string]*localNetwork{}}
	for _, name := range slices.Sorted(maps.Keys(f.Networks)) {
		l, err := f.network(name, lim, now)
		if err != nil {
			return nil, fmt.Errorf("network %q: %w", name, err)
		}
		r.networks[name] = l
	}
	for i := range f.Removed {
		x := &f.Removed[i]
		_, err := x.Def.parse(x.Name)
		if x.Birth > maxTime || x.Lamport > maxTime {
			err = fmt.Errorf("birth %d, Lamport time %d; meshd writes none above %d", x.Birth, x.Lamport, uint64(maxTime))
		}
		if err != nil {
			f.leaveOut("the removal of network %q: %v", x.Name, err)
			continue
		}
		until := f.remaining(x.Left, x.At.Add(removalMemory), removalMemory, now)
		r.removed = append(r.removed, removedNetwork{
			name: x.Name, birth: x.Birth, lamport: x.Lamport, def: x.Def,
			until: until,
		})
	}
	return r, lim.Check(r)
}

func (f *file) network(name string, lim Bounds, now time.Time) (*localNetwork, error) {
	n := f.Networks[name]
	if n == nil {
		return nil, errors.New("empty")
	}
	if err := state.CheckName(name); err != nil {
		return nil, err
	}
	l := newLocalNetwork()
	for id, t := range n.Tasks {
		if _, err := t.endpoint(id); err != nil {
			return nil, fmt.Errorf("task %q: %w", id, err)
		}
		l.tasks[id] = t
		l.count(id, t, 1)
	}
	for s, c := range n.Services {
		if strings.HasSuffix(s, retreating) { // an earlier version saved them
			continue
		}
		if err := c.check(s); err != nil { // another node may have made the claim: it is carried verbatim
			f.leaveOut("the claims of service %q in network %q: %v", s, name, err)
			continue
		}
		out := savedClaim{vip: c.VIP, settings: c.Settings}
		if c.Left > 0 || !c.Until.IsZero() {
			out.until = f.remaining(c.Left, c.Until, lim.Reservation, now)
		}
		l.services[s] = out
	}
	if l.def = n.Def; l.def != nil {
		if _, err := l.def.parse(name); err != nil {
			return nil, err
		}
	}
	if l.carried = n.Carried; l.carried != nil {
		if _, err := l.carried.parse(name); err != nil {
			f.leaveOut("the definition of network %q that other nodes gave: %v", name, err)
			l.carried = nil
		}
	}
	return l, nil
}

func (f *file) leaveOut(format string, args ...any) {
	f.leftOut = append(f.leftOut, fmt.Sprintf(format, args...))
}

func (c *claimFile) check(service string) error {
	if err := state.CheckName(service); err != nil {
		return err
	}
	claim, err := state.ParseVIPClaim(service, string(c.VIP))
	if err != nil {
		return err
	}
	settings, err := state.ParseSettings(string(c.Settings))
	return errors.Join(err, state.CheckLamport(claim.Birth), state.CheckLamport(settings.Lamport))
}

// maxTime bounds the Lamport times that a file may hold. No mesh reaches it (S16).
const maxTime = state.MaxLamport
