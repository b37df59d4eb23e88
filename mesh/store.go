package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// The data directory holds what must survive the process:
//
//	node.json   the name, the last incarnation and the Lamport time (S7, S8)
//	tasks.json  registrations, networks made here, claims carried (V2, V6)
//	sandboxes.json  attached containers (L4)
//	peers.json  nodes once met (G2)
//	keys.json   the keyring as the mesh last changed it (G9)
//
// Every file is replaced atomically. A file that cannot be read is never
// overwritten: the daemon refuses to start and says what to do.
type dataDir struct {
	path string
	lock *os.File
}

// identity is node.json.
type identity struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Lamport     uint64 `json:"lamport"`
}

// registry is tasks.json: what this node states, apart from what follows from it.
type registry struct {
	Networks map[string]*localNetwork `json:"networks"`
	Removed  []removedNetwork         `json:"removed,omitempty"`
}

// localNetwork is what this node has in one network.
type localNetwork struct {
	Def      *networkDef           `json:"def,omitempty"`     // made here by a person
	Carried  *networkDef           `json:"carried,omitempty"` // made elsewhere, and stated here too (V6)
	Tasks    map[string]savedTask  `json:"tasks,omitempty"`
	Services map[string]savedClaim `json:"services,omitempty"`

	sandboxes int // attached to it on this node; from sandboxes.json
}

type networkDef struct {
	Subnet4 string `json:"subnet,omitempty"`
	Subnet6 string `json:"subnet6,omitempty"`
	Birth   uint64 `json:"birth"`
}

type removedNetwork struct {
	Name    string    `json:"name"`
	Birth   uint64    `json:"birth"`
	Lamport uint64    `json:"lamport"`
	At      time.Time `json:"at"`
	Def     networkDef
}

// savedTask is a registration: the record body as it is stated, so that fields
// of a newer version survive a downgrade.
type savedTask struct {
	Service string `json:"service"`
	Body    []byte `json:"body"`
}

// savedClaim is what was last carried for a service.
type savedClaim struct {
	VIP      []byte    `json:"vip,omitempty"`      // body of the claim
	Settings []byte    `json:"settings,omitempty"` // body of the settings
	Until    time.Time `json:"until,omitzero"`     // without tasks: when the reservation ends
}

// lockWait is how long the lock of a data directory is waited for: a daemon
// that was killed holds it until the kernel has ended it.
const lockWait = 2 * time.Second

// lockSoon takes the lock, waiting for a former owner's end.
func lockSoon(f *os.File) (err error) {
	for end := time.Now().Add(lockWait); ; {
		if err = lockFile(f); err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// openDataDir creates and locks the directory.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data-dir: %w; choose a writable --data-dir", err)
	}
	d := &dataDir{path: path}
	f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data-dir: not writable: %w; choose a writable --data-dir", err)
	}
	if err := lockSoon(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data-dir %s: another meshd uses it; stop that one or choose another --data-dir", path)
	}
	d.lock = f
	probe := filepath.Join(path, ".writable")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("data-dir: not writable: %w", err), f.Close())
	}
	return d, os.Remove(probe)
}

func (d *dataDir) close() error { return d.lock.Close() }

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// load reads a JSON file into v; a missing one leaves v as it is.
func (d *dataDir) load(name string, v any) error {
	b, err := os.ReadFile(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("data-dir: %s is corrupted (%w) and was left as it is: restore it from a backup, or move it away to start without what it held", d.file(name), err)
	}
	return nil
}

func (d *dataDir) save(name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	if err := gossip.WriteFile(d.file(name), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	return nil
}

// begin starts a new life: it returns the identity with the incarnation to
// live, already on disk (S7).
func (d *dataDir) begin(node string) (identity, error) {
	id := identity{Node: node}
	if err := d.load("node.json", &id); err != nil {
		return id, err
	}
	if id.Node != node {
		return id, fmt.Errorf("node: the data directory %s belongs to node %q; start with --node %s, or give this node another --data-dir", d.path, id.Node, id.Node)
	}
	if err := errors.Join(state.CheckIncarnation(id.Incarnation+1), state.CheckLamport(id.Lamport)); err != nil {
		return id, fmt.Errorf("data-dir: %s: %w", d.file("node.json"), err)
	}
	id.Incarnation++
	return id, d.save("node.json", id)
}

// registry reads tasks.json and checks every record in it.
func (d *dataDir) registry() (*registry, error) {
	r := &registry{Networks: map[string]*localNetwork{}}
	if err := d.load("tasks.json", r); err != nil {
		return nil, err
	}
	for name, n := range r.Networks {
		if err := n.check(name); err != nil {
			return nil, fmt.Errorf("data-dir: %s is corrupted (network %q: %w) and was left as it is: restore it from a backup, or move it away", d.file("tasks.json"), name, err)
		}
	}
	return r, nil
}

func (n *localNetwork) check(name string) error {
	if n == nil {
		return errors.New("empty")
	}
	if err := state.CheckName(name); err != nil {
		return err
	}
	n.init()
	for id, t := range n.Tasks {
		if _, err := t.endpoint(id); err != nil {
			return fmt.Errorf("task %q: %w", id, err)
		}
	}
	for s, c := range n.Services {
		if _, err := state.ParseVIPClaim(s, string(c.VIP)); err != nil {
			return fmt.Errorf("service %q: %w", s, err)
		}
		if _, err := state.ParseSettings(string(c.Settings)); err != nil {
			return fmt.Errorf("service %q: %w", s, err)
		}
	}
	for _, d := range []*networkDef{n.Def, n.Carried} {
		if d == nil {
			continue
		}
		if _, err := d.parse(name); err != nil {
			return err
		}
	}
	return nil
}

func (n *localNetwork) init() {
	if n.Tasks == nil {
		n.Tasks = map[string]savedTask{}
	}
	if n.Services == nil {
		n.Services = map[string]savedClaim{}
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

func (d *networkDef) parse(name string) (state.NetworkDef, error) {
	return parseDef(name, d.Subnet4, d.Subnet6, d.Birth)
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

// network returns the node's part in a network, made if need be.
func (r *registry) network(name string) *localNetwork {
	n := r.Networks[name]
	if n == nil {
		n = &localNetwork{}
		n.init()
		r.Networks[name] = n
	}
	return n
}

// tasksOf counts the node's tasks of a service.
func (n *localNetwork) tasksOf(service string) int {
	c := 0
	for _, t := range n.Tasks {
		if t.Service == service {
			c++
		}
	}
	return c
}

// changes returns all that the node states in the network, in a fixed order.
func (n *localNetwork) changes() []state.Change {
	var cs []state.Change
	for _, id := range slices.Sorted(maps.Keys(n.Tasks)) {
		cs = append(cs, n.Tasks[id].change(id))
	}
	for _, s := range slices.Sorted(maps.Keys(n.Services)) {
		c := n.Services[s]
		if len(c.VIP) > 0 {
			cs = append(cs, state.Change{Kind: state.KindVIP, Key: s, Body: string(c.VIP)})
		}
		if len(c.Settings) > 0 {
			cs = append(cs, state.Change{Kind: state.KindSettings, Key: s, Body: string(c.Settings)})
		}
	}
	return cs
}

// used reports whether the node has a reason to take part.
func (n *localNetwork) used() bool {
	return n.Def != nil || len(n.Tasks) > 0 || len(n.Services) > 0 || n.sandboxes > 0
}

// inUse reports whether something on this node would lose its network.
func (n *localNetwork) inUse() bool { return len(n.Tasks) > 0 || n.sandboxes > 0 }
