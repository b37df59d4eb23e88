package registry

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// file is what is on disk: tasks.json of versions before the store, or the records of the
// store put together. It holds the durations that are left and the time of saving, and no
// points in time: a host whose clock was or is wrong frees no address by it (N3).
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

// tasksFile are tasks by id.
type tasksFile map[string]*savedTask

type claimFile struct {
	VIP      []byte    `json:"vip,omitempty"`
	Settings []byte    `json:"settings,omitempty"`
	Until    time.Time `json:"until,omitzero"` // of versions that did not know left
	Left     int64     `json:"left,omitempty"` // seconds of the reservation, at least 1 if there is one
	Saved    time.Time `json:"saved,omitzero"` // when that was so many; zero: when the file was saved
}

type removedFile struct {
	Name    string    `json:"name"`
	Birth   uint64    `json:"birth"`
	Lamport uint64    `json:"lamport"`
	At      time.Time `json:"at,omitzero"` // of versions that did not know left
	Left    int64     `json:"left,omitempty"`
	Saved   time.Time `json:"saved,omitzero"` // when that was so many; zero: when the file was saved
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
func (f *file) remaining(left int64, saved, until time.Time, most time.Duration, now time.Time) time.Time {
	if saved.IsZero() {
		saved = f.Saved
	}
	rest := time.Duration(min(max(left, 0), int64(most/time.Second))) * time.Second
	if left == 0 && !until.IsZero() {
		rest = until.Sub(now.Round(0))
		if rest < 0 || rest > most { // over, or the clock is wrong: keep it
			rest = most
		}
		return now.Add(rest)
	}
	return now.Add(max(rest-passed(saved, now), 0))
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
		until := f.remaining(x.Left, x.Saved, x.At.Add(removalMemory), removalMemory, now)
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
		if t == nil {
			return nil, fmt.Errorf("task %q: empty", id)
		}
		if _, err := t.endpoint(id); err != nil {
			return nil, fmt.Errorf("task %q: %w", id, err)
		}
		l.tasks.set(id, t)
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
			out.until = f.remaining(c.Left, c.Saved, c.Until, lim.Reservation, now)
		}
		l.services.set(s, &out)
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
