package mesh

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

// registry is what this node states, apart from what follows from it. It is
// immutable: a draft is made of it, changed, written to tasks.json, and takes
// its place.
type registry struct {
	networks map[string]*localNetwork
	removed  []removedNetwork // the newest last
}

// localNetwork is what this node has in one network.
type localNetwork struct {
	def      *networkDef // made here by a person
	carried  *networkDef // made elsewhere, and stated here too (V6)
	tasks    map[string]savedTask
	services map[string]savedClaim

	counts    map[string]int // tasks by service
	places    map[uint64]int // tasks by the hash of service and address: a second one is seldom
	sandboxes int            // attached to it on this node; from sandboxes.json
}

// networkDef is a definition as the file has it. It is never changed.
type networkDef struct {
	Subnet4 string `json:"subnet,omitempty"`
	Subnet6 string `json:"subnet6,omitempty"`
	Birth   uint64 `json:"birth"`
}

// removedNetwork is the removal of a network that this node states.
type removedNetwork struct {
	name    string
	birth   uint64 // definitions up to this one are withdrawn
	lamport uint64
	def     networkDef
	until   time.Time // when it is forgotten, by the clock of this process
}

// savedTask is a registration: the record body as it is stated, so that fields
// of a newer version survive a downgrade.
type savedTask struct {
	Service string `json:"service"`
	Body    []byte `json:"body"`
}

// savedClaim is what was last carried for a service.
type savedClaim struct {
	vip      []byte    // body of the claim
	settings []byte    // body of the settings
	until    time.Time // without tasks: when the reservation ends, by the clock of this process
}

func (a savedClaim) equal(b savedClaim) bool {
	return bytes.Equal(a.vip, b.vip) && bytes.Equal(a.settings, b.settings) && a.until.Equal(b.until)
}

// registryFile is tasks.json. It holds durations that are left, and when they
// were: a host whose clock was wrong then, or is now, loses nothing by it.
type registryFile struct {
	Saved    time.Time               `json:"saved,omitzero"`
	Networks map[string]*networkFile `json:"networks"`
	Removed  []removedFile           `json:"removed,omitempty"`

	leftOut []string // what was not believed, for people
}

type networkFile struct {
	Def      *networkDef          `json:"def,omitempty"`
	Carried  *networkDef          `json:"carried,omitempty"`
	Tasks    tasksFile            `json:"tasks,omitempty"`
	Services map[string]claimFile `json:"services,omitempty"`
}

// tasksFile are tasks by id. They are what most of a file is, so they are
// written without reflection.
type tasksFile map[string]savedTask

// MarshalJSON implements json.Marshaler. Ids and services are labels, in
// which nothing is to be escaped.
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

// longestAway is how long a daemon may have been away by the clock: what says
// more is a clock that was wrong.
const longestAway = 60 * 24 * time.Hour

// passed returns how much time passed between the last save and now, by a clock
// that may be wrong at either. A clock that went back, or leapt, tells nothing:
// then no time passed.
func passed(saved, now time.Time) time.Duration {
	d := now.Round(0).Sub(saved) // by the wall clock: the other process had another one
	if d < 0 || d > longestAway || saved.IsZero() {
		return 0
	}
	return d
}

// remaining turns a duration of the file into a time of this process. Files of
// earlier versions have a point in time instead.
func (f *registryFile) remaining(left int64, until time.Time, most time.Duration, now time.Time) time.Time {
	rest := time.Duration(min(max(left, 0), int64(most/time.Second))) * time.Second
	if left == 0 && !until.IsZero() {
		rest = until.Sub(now.Round(0))
		if rest < 0 || rest > most { // over, or a clock that is wrong: rather keep it
			rest = most
		}
		return now.Add(rest)
	}
	return now.Add(max(rest-passed(f.Saved, now), 0))
}

// encode writes the registry as tasks.json.
func (r *registry) encode(now time.Time) ([]byte, error) {
	f := registryFile{Saved: now.Round(0), Networks: make(map[string]*networkFile, len(r.networks))}
	for name, l := range r.networks {
		n := &networkFile{Def: l.def, Carried: l.carried, Tasks: l.tasks}
		if len(l.services) > 0 {
			n.Services = make(map[string]claimFile, len(l.services))
		}
		for s, c := range l.services {
			n.Services[s] = claimFile{VIP: c.vip, Settings: c.settings, Until: c.until.Round(0), Left: secondsLeft(c.until, now)}
		}
		f.Networks[name] = n
	}
	for i := range r.removed {
		x := &r.removed[i]
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

// secondsLeft is at least 1: 0 says that there is no end.
func secondsLeft(until, now time.Time) int64 {
	if until.IsZero() {
		return 0
	}
	return max(int64(until.Sub(now)/time.Second), 1)
}

// registry reads tasks.json and checks every record in it. What other nodes said
// and an earlier version wrote down, though it cannot be right, is left out, and
// told.
func (d *dataDir) registry(lim bounds, now time.Time) (*registry, []string, error) {
	f := registryFile{}
	if err := d.load(fileTasks, &f); err != nil {
		return nil, nil, err
	}
	r, err := f.registry(lim, now)
	if many, ok := errors.AsType[errTooMany](err); ok {
		return nil, nil, configError{many} // the file is well, and must not be moved away for it
	}
	if err != nil {
		return nil, nil, d.corrupted(fileTasks, err,
			"restore it from a backup, or move it away to start without what it held")
	}
	return r, f.leftOut, nil
}

// registry checks the file against what a request or a peer might say.
func (f *registryFile) registry(lim bounds, now time.Time) (*registry, error) {
	r := &registry{networks: map[string]*localNetwork{}}
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
	return r, lim.check(r)
}

func (f *registryFile) network(name string, lim bounds, now time.Time) (*localNetwork, error) {
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
		if strings.HasSuffix(s, retreating) { // an earlier version kept them
			continue
		}
		if err := c.check(s); err != nil { // a claim is carried verbatim, as whoever made it wrote it
			f.leaveOut("the claims of service %q in network %q: %v", s, name, err)
			continue
		}
		out := savedClaim{vip: c.VIP, settings: c.Settings}
		if c.Left > 0 || !c.Until.IsZero() {
			out.until = f.remaining(c.Left, c.Until, lim.reservation, now)
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

func (f *registryFile) leaveOut(format string, args ...any) {
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

// maxTime bounds the Lamport times that a file may hold: no mesh reaches it.
const maxTime = state.MaxLamport

func newLocalNetwork() *localNetwork {
	return &localNetwork{
		tasks: map[string]savedTask{}, services: map[string]savedClaim{}, counts: map[string]int{},
		places: map[uint64]int{},
	}
}

func newNetworkDef(d state.NetworkDef) *networkDef {
	n := &networkDef{Birth: d.Birth}
	if d.Subnet4.IsValid() {
		n.Subnet4 = d.Subnet4.String()
	}
	if d.Subnet6.IsValid() {
		n.Subnet6 = d.Subnet6.String()
	}
	return n
}

// parse reads a definition as a request to create it would be read.
func (d *networkDef) parse(name string) (state.NetworkDef, error) {
	if d.Birth > maxTime {
		return state.NetworkDef{}, fmt.Errorf("birth %d; meshd writes none above %d", d.Birth, uint64(maxTime))
	}
	def, err := parseDef(name, d.Subnet4, d.Subnet6, d.Birth)
	if err == nil {
		err = def.Validate()
	}
	return def, err
}

func (t savedTask) endpoint(id string) (state.Endpoint, error) {
	e, err := state.ParseEndpoint(string(t.Body))
	if err != nil {
		return e, err
	}
	e.ID, e.Service = id, t.Service
	return e, e.Validate()
}

func (t savedTask) change(id string) state.Change {
	return state.Change{Kind: state.KindEndpoint, Key: id, Group: t.Service, Body: string(t.Body)}
}

// changes returns all that the node states in the network, in a fixed order.
func (n *localNetwork) changes() []state.Change {
	var cs []state.Change
	for _, id := range slices.Sorted(maps.Keys(n.tasks)) {
		cs = append(cs, n.tasks[id].change(id))
	}
	for _, s := range slices.Sorted(maps.Keys(n.services)) {
		c := n.services[s]
		if len(c.vip) > 0 {
			cs = append(cs, state.Change{Kind: state.KindVIP, Key: s, Body: string(c.vip)})
		}
		if len(c.settings) > 0 {
			cs = append(cs, state.Change{Kind: state.KindSettings, Key: s, Body: string(c.settings)})
		}
	}
	return cs
}

// used reports whether the node has a reason to take part.
func (n *localNetwork) used() bool {
	return n != nil && (n.def != nil || len(n.tasks) > 0 || len(n.services) > 0 || n.sandboxes > 0)
}

// inUse reports whether something on this node would lose its network.
func (n *localNetwork) inUse() bool { return n != nil && (len(n.tasks) > 0 || n.sandboxes > 0) }

// tasksOf counts the node's tasks of a service.
func (n *localNetwork) tasksOf(service string) int {
	if n == nil {
		return 0
	}
	return n.counts[service]
}
