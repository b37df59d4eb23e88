package registry

import (
	"bytes"
	"fmt"
	"time"

	"meshd/state"
)

// Snapshot is what is registered on this node at one moment. It is immutable: a change
// makes a draft of it, which shares with it what is not changed, writes what is to the
// Store and puts the draft in its place.
type Snapshot struct {
	networks map[string]*localNetwork
	removed  []removedNetwork // the newest last
}

// localNetwork is what this node has in one network.
type localNetwork struct {
	def      *networkDef          // made on this node by a person; nil: it was not
	carried  *networkDef          // made elsewhere, and stated by this node too (V6)
	tasks    ordered[*savedTask]  // by id; the tasks do not change
	services ordered[*savedClaim] // by name; with tasks here, or reserved; they do not change

	counts    ordered[int]      // tasks by service
	units     ordered[struct{}] // the keys of unitKey, with the ids
	places    ordered[struct{}] // the keys of placeKey: which tasks a service has at an address
	sandboxes int               // attached on this node; sandboxes.json has them
}

// networkDef is a definition as the file has it. It is immutable.
type networkDef struct {
	Subnet4 string `json:"subnet,omitempty"`
	Subnet6 string `json:"subnet6,omitempty"`
	Birth   uint64 `json:"birth"`
}

// removedNetwork is the removal of a network, as this node states it (N6).
type removedNetwork struct {
	name    string
	birth   uint64 // definitions up to this one are withdrawn
	lamport uint64
	def     networkDef
	until   time.Time // when it is forgotten, by the clock of this process
}

// savedTask is a registration. It has the body of the record as it is stated, so that
// fields of a newer version survive a downgrade.
type savedTask struct {
	Service string `json:"service"`
	Body    []byte `json:"body"`

	// Who states it (N10): empty is the API.

	Origin   string `json:"origin,omitempty"`
	Unit     string `json:"unit,omitempty"`
	Location string `json:"location,omitempty"` // in the unit, for people
	Checks   []byte `json:"checks,omitempty"`   // of whoever runs them
}

// savedClaim is what was last carried for a service.
type savedClaim struct {
	vip      []byte    // body of the claim
	settings []byte    // body of the settings
	until    time.Time // without tasks: when the reservation ends, by the clock of this process
}

func (a *savedClaim) equal(b *savedClaim) bool {
	return bytes.Equal(a.vip, b.vip) && bytes.Equal(a.settings, b.settings) && a.until.Equal(b.until)
}

// copied returns a copy that may be changed.
func (n *localNetwork) copied() *localNetwork {
	c := *n
	c.tasks, c.services, c.counts, c.places = n.tasks.copied(), n.services.copied(), n.counts.copied(), n.places.copied()
	c.units = n.units.copied()
	return &c
}

func newLocalNetwork() *localNetwork { return (&localNetwork{}).copied() }

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

// parse reads a definition with the checks of a request to create it.
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

func (t *savedTask) endpoint(id string) (state.Endpoint, error) {
	e, err := state.ParseEndpoint(string(t.Body))
	if err != nil {
		return e, err
	}
	e.ID, e.Service = id, t.Service
	return e, e.Validate()
}

// draining returns the task as one that drains, and its endpoint. Fields of its
// record that this version does not know stay.
func (t *savedTask) draining(id string) (*savedTask, state.Endpoint, error) {
	body, err := state.WithDraining(t.Body)
	if err != nil {
		return nil, state.Endpoint{}, err
	}
	drained := *t
	drained.Body = body
	e, err := drained.endpoint(id)
	return &drained, e, err
}

func (t *savedTask) change(id string) state.Change {
	return state.Change{Kind: state.KindEndpoint, Key: id, Group: t.Service, Body: string(t.Body)}
}

// changes returns all that the node states in the network, in a fixed order.
func (n *localNetwork) changes() []state.Change {
	var cs []state.Change
	for id, t := range n.tasks.all() {
		cs = append(cs, t.change(id))
	}
	for s, c := range n.services.all() {
		if len(c.vip) > 0 {
			cs = append(cs, state.Change{Kind: state.KindVIP, Key: s, Body: string(c.vip)})
		}
		if len(c.settings) > 0 {
			cs = append(cs, state.Change{Kind: state.KindSettings, Key: s, Body: string(c.settings)})
		}
	}
	return cs
}

// used reports whether the node has a reason to take part in the network.
func (n *localNetwork) used() bool {
	return n != nil && (n.def != nil || n.tasks.len() > 0 || n.services.len() > 0 || n.sandboxes > 0)
}

// inUse reports whether a task or a sandbox of this node would lose its network.
func (n *localNetwork) inUse() bool { return n != nil && (n.tasks.len() > 0 || n.sandboxes > 0) }

// tasksOf counts the node's tasks of a service.
func (n *localNetwork) tasksOf(service string) int {
	if n == nil {
		return 0
	}
	return n.counts.at(service)
}

// Task returns a task that is registered in a network.
func (s *Snapshot) Task(network, id string) (e state.Endpoint, ok bool) {
	l := s.networks[network]
	if l == nil {
		return e, false
	}
	t, ok := l.tasks.get(id)
	if !ok {
		return e, false
	}
	e, err := t.endpoint(id)
	return e, err == nil
}
