// Package boxtest has fakes of what a box.Manager talks to: a registry that remembers,
// load balancers and name servers that work at once, and network namespaces that end
// when a test says so. They need no privileges and no kernel.
package boxtest

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/box"
	"meshd/mesh/sandbox"
)

// Disk is a box.Store in memory. It is safe for concurrent use.
type Disk struct {
	mu   sync.Mutex // guards what follows
	text []byte
	err  error
}

// Load implements box.Store.
func (d *Disk) Load(v any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.text == nil {
		return nil
	}
	return json.Unmarshal(d.text, v)
}

// Save implements box.Store.
func (d *Disk) Save(v any) error {
	b, err := json.Marshal(v)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err = errors.Join(err, d.err); err == nil {
		d.text = b
	}
	return err
}

// Fail makes every Save fail with err, or work again if it is nil.
func (d *Disk) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// Registry remembers tasks and holds. It is safe for concurrent use.
type Registry struct {
	mu      sync.Mutex // guards what follows
	holds   map[string]int
	tasks   map[string]bool // "NETWORK/ID"
	refuses error
}

var _ box.Registry = (*Registry)(nil)

// Refuse makes Register fail with err, or work again if it is nil.
func (r *Registry) Refuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuses = err
}

// Tasks returns the registered tasks as "NETWORK/ID", sorted.
func (r *Registry) Tasks() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.tasks))
}

// Holds returns how often each network is held; networks that are not are left out.
func (r *Registry) Holds() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.holds)
}

func (r *Registry) hold(networks []string, by int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holds == nil {
		r.holds = map[string]int{}
	}
	for _, name := range networks {
		if r.holds[name] += by; r.holds[name] == 0 {
			delete(r.holds, name)
		}
	}
}

// RestoreHold implements box.Registry.
func (r *Registry) RestoreHold(networks []string) { r.hold(networks, 1) }

// RestoreWithout implements box.Registry.
func (r *Registry) RestoreWithout(networks []string, _, task string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range networks {
		delete(r.tasks, name+"/"+task)
	}
}

// Hold implements box.Registry.
func (r *Registry) Hold(_ context.Context, networks []string) error {
	r.hold(networks, 1)
	return nil
}

// Release implements box.Registry.
func (r *Registry) Release(_ context.Context, networks []string) { r.hold(networks, -1) }

// AdmitTasks implements box.Registry.
func (r *Registry) AdmitTasks([]control.AddTask) error { return nil }

// Register implements box.Registry.
func (r *Registry) Register(_ context.Context, t control.AddTask, _ map[string]bool) (control.TaskAdded, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuses != nil {
		return control.TaskAdded{}, r.refuses
	}
	if r.tasks == nil {
		r.tasks = map[string]bool{}
	}
	r.tasks[t.Network+"/"+t.ID] = true
	return control.TaskAdded{}, nil
}

// RemoveTask implements box.Registry.
func (r *Registry) RemoveTask(_ context.Context, ref control.TaskRef) (control.Task, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := ref.Network + "/" + ref.ID
	if !r.tasks[key] {
		return control.Task{}, control.ErrNotFound
	}
	delete(r.tasks, key)
	return control.Task{}, nil
}

// Listens implements box.Registry.
func (r *Registry) Listens(string, string, string) ([]box.Port, bool) { return nil, false }

// Balancing makes balancers that work at once and program nothing.
type Balancing struct{}

var _ box.Balancing = Balancing{}

// Make implements box.Balancing.
func (Balancing) Make(box.Namespaced) (box.Balancer, error) { return balancer{}, nil }

// RemoveAll implements box.Balancing.
func (Balancing) RemoveAll(context.Context, box.Namespaced) map[string]error { return nil }

// Hold implements box.Balancing.
func (Balancing) Hold(string) box.Holder { return holder{} }

// Spend implements box.Balancing.
func (Balancing) Spend(f func()) (rest time.Duration) {
	f()
	return 0
}

type holder struct{}

func (holder) Take() error    { return nil }
func (holder) Release() error { return nil }

type balancer struct{}

func (balancer) Start(context.Context) (stop func())            { return func() {} }
func (balancer) Close() error                                   { return nil }
func (balancer) Working(string) bool                            { return true }
func (balancer) Pending(string) bool                            { return false }
func (balancer) Driver() string                                 { return "fake" }
func (balancer) Pools() []netip.Prefix                          { return nil }
func (balancer) Problems() []string                             { return nil }
func (balancer) Table(context.Context) (control.LBTable, error) { return control.LBTable{}, nil }
func (balancer) Changes() <-chan struct{}                       { return nil }
func (balancer) Deaf() bool                                     { return false }

// Names opens name servers that answer nothing.
type Names struct{}

// Listen implements box.Names.
func (Names) Listen(box.Listener) (box.Server, error) { return server{}, nil }

type server struct{}

func (server) Close(context.Context) error { return nil }

// Namespaces are the network namespaces of a host. They are safe for concurrent use.
type Namespaces struct {
	mu  sync.Mutex // guards all
	all map[string]*Namespace
}

// Add makes a namespace at a path, with one address.
func (n *Namespaces) Add(path string, addr netip.Addr) *Namespace {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[string]*Namespace{}
	}
	ns := &Namespace{path: path, addr: addr, number: uint64(len(n.all) + 1), died: make(chan struct{})}
	n.all[path] = ns
	return ns
}

// Open opens a namespace by its path. It is the Open of a box.Config.
func (n *Namespaces) Open(t sandbox.Target) (box.Namespace, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ns := n.all[t.Path]
	if ns == nil || ns.ended() {
		return nil, fs.ErrNotExist
	}
	return ns, nil
}

// Namespace is one network namespace. It is safe for concurrent use.
type Namespace struct {
	path   string
	addr   netip.Addr
	number uint64        // its inode
	died   chan struct{} // closed by End

	mu         sync.Mutex // guards redirected
	redirected bool
}

// End ends the namespace, once.
func (n *Namespace) End() { close(n.died) }

func (n *Namespace) ended() bool {
	select {
	case <-n.died:
		return true
	default:
		return false
	}
}

// Path implements box.Namespace, as the methods that follow.
func (n *Namespace) Path() string { return n.path }

// Identity returns what tells it from others.
func (n *Namespace) Identity() sandbox.Identity { return sandbox.Identity{Boot: "boot", Ino: n.number} }

// Addrs returns its address.
func (n *Namespace) Addrs() ([]netip.Addr, error) { return []netip.Addr{n.addr}, nil }

// Died is closed by End.
func (n *Namespace) Died() <-chan struct{} { return n.died }

// Gone returns an error after End.
func (n *Namespace) Gone() error {
	if n.ended() {
		return sandbox.ErrGone
	}
	return nil
}

// Listen returns no sockets, on port 40001 unless another is asked for.
func (n *Namespace) Listen(port uint16) (*sandbox.Sockets, error) {
	if port == 0 {
		port = 40001
	}
	return &sandbox.Sockets{Port: port, Redirected: n.Redirect(port) == nil}, nil
}

// Redirect sends port 53 to another port.
func (n *Namespace) Redirect(uint16) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.redirected = true
	return nil
}

// Redirected reports whether it is sent there.
func (n *Namespace) Redirected(uint16) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.redirected, nil
}

// RemoveRedirect ends that.
func (n *Namespace) RemoveRedirect() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.redirected = false
	return nil
}

// Do calls f, outside.
func (n *Namespace) Do(f func() error) error { return f() }

// Close does nothing: the namespace can be opened again.
func (n *Namespace) Close() error { return nil }
