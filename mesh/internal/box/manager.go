// Package box keeps the sandboxes of a node: containers that have a name server and a
// load balancer of their own (L4, R1). It owns sandboxes.json, what is in their network
// namespaces and their resolv.conf; package sandbox does the work inside.
//
// A Manager holds all sandboxes, each run by one goroutine: Sandbox.run alone changes
// what is in the namespace, from attaching to taking down. The package knows neither
// gossip nor load balancing: it registers tasks through Registry, has balancers made by
// Balancing and names answered by Names. boxtest has fakes of them.
package box

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"meshd/mesh/control"
	"meshd/mesh/sandbox"
)

// maxSandboxes bounds what a node attaches (N5).
const maxSandboxes = 4096

// Config configures a Manager.
type Config struct {
	Store     Store                                     // sandboxes.json
	Registry  Registry                                  // where tasks are registered
	Balancing Balancing                                 // makes load balancers
	Names     Names                                     // answers names
	Open      func(t sandbox.Target) (Namespace, error) // of network namespaces: OpenNamespace, or a test's
	Keeper    *sandbox.Keeper                           // of resolv.conf files
	Emit      func(events ...control.Event)             // to those who watch
	Condition func(key, text string)                    // replaces a condition that status shows; "" ends it
	Log       *slog.Logger                              // for what no caller is there to hear
}

// Manager holds the sandboxes of this node. Make it with Open, then call Start and, in
// a goroutine, Wait; or Close if the node does not start. Its other methods are safe
// for concurrent use.
type Manager struct {
	cfg Config       // fixed
	log *slog.Logger // of cfg

	// The sandboxes.

	mu     sync.Mutex          // guards all and ctx; held for moments only
	all    map[string]*Sandbox // by id
	ctx    context.Context     // in which sandboxes run; nil before Start
	closed []Saved             // that cannot be entered and may exist; fixed by Open
	late   []func()            // what Open leaves for Start: a start may fail
	end    sync.WaitGroup      // the goroutines of sandboxes
	saving sync.Mutex          // orders writes of sandboxes.json

	// Counters since the start, for metrics.

	attached       atomic.Uint64 // sandboxes
	detached       atomic.Uint64 // sandboxes
	lost           atomic.Uint64 // sandboxes whose namespace ended
	redirects      atomic.Uint64 // of port 53 that others had removed, and that were made again
	redirectsHeard atomic.Uint64 // of them, those whose removal the kernel told of
}

// Open finds again the namespaces of the sandboxes that were attached when the last
// life ended. One that ended since is dropped with its task, before the task is stated.
// One that cannot be entered, for want of privileges, is kept as it is for a life that
// can. It writes nothing: the start may fail.
func Open(cfg Config) (*Manager, error) {
	m := &Manager{cfg: cfg, log: cfg.Log, all: map[string]*Sandbox{}}
	list, err := Read(cfg.Store)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if err := m.restore(list[i]); err != nil {
			m.Close()
			return nil, err
		}
	}
	return m, nil
}

// restore finds one sandbox again.
func (m *Manager) restore(s Saved) error {
	ns, err := m.reopen(&s)
	if hasEnded(err) {
		m.log.Info("sandbox lost while meshd was away", "sandbox", s.Name, "reason", err.Error())
		m.drop(&s)
		m.lost.Add(1)
		return nil
	}
	m.cfg.Registry.RestoreHold(s.Networks)
	if err != nil {
		m.log.Error("sandbox cannot be entered", "sandbox", s.Name, "error", err)
		m.cfg.Condition("sandbox "+s.Name,
			fmt.Sprintf("sandbox %s has no name server, and its load balancer is not kept: %v; restart meshd with "+
				"CAP_SYS_ADMIN and CAP_SYS_PTRACE", s.Name, err))
		m.closed = append(m.closed, s)
		return nil
	}
	b, err := m.newSandbox(s, ns, true)
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	m.all[s.ID] = b
	return nil
}

// reopen opens the namespace of a saved sandbox, if it is the same one.
func (m *Manager) reopen(s *Saved) (Namespace, error) { return reopen(s, m.cfg.Open) }

// Reopen opens the namespace of a saved sandbox of this host, if it is the same one. The
// error is a sandbox.ErrGone or fs.ErrNotExist if it has ended.
func Reopen(s *Saved) (Namespace, error) { return reopen(s, OpenNamespace) }

func reopen(s *Saved, open func(t sandbox.Target) (Namespace, error)) (Namespace, error) {
	ns, err := open(s.target())
	if err != nil {
		return nil, err
	}
	if ns.Identity() != s.Identity {
		return nil, errors.Join(sandbox.ErrGone, ns.Close())
	}
	return ns, nil
}

// hasEnded reports whether reopen found that there is nothing to open any more.
func hasEnded(err error) bool {
	return errors.Is(err, sandbox.ErrGone) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, sandbox.ErrNotNamespace)
}

// drop forgets the tasks of a sandbox that ended while meshd was away, as if they
// were removed now, and puts back its resolv.conf once the node starts.
func (m *Manager) drop(s *Saved) {
	m.cfg.Registry.RestoreWithout(s.Networks, s.Service, s.Task)
	if conf, name := s.ResolvConf, s.Name; conf != nil && conf.Root == "" {
		m.late = append(m.late, func() {
			err := m.cfg.Keeper.Restore(context.Background(), conf) // bounded by itself
			m.logError(name, "resolv.conf not put back", err)
		})
	}
}

func (m *Manager) logError(name, what string, err error) {
	if err != nil {
		m.log.Warn("something of a sandbox does not work", "name", name, "what", what, "error", err)
	}
}

// Claim does what Open left, once the start of the node cannot fail any more.
func (m *Manager) Claim() {
	for _, f := range m.late {
		f()
	}
	m.late = nil
}

// Start serves what Open found, until ctx ends, and lets sandboxes be attached.
func (m *Manager) Start(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx = ctx
	for _, b := range m.all {
		m.end.Go(func() { b.run(ctx) })
	}
}

// Wait returns when ctx has ended and every sandbox is let go of, but not taken
// down: the next life takes them over.
func (m *Manager) Wait(ctx context.Context) error {
	<-ctx.Done()
	m.end.Wait()
	return nil
}

// Close lets go of namespaces that were not served: Start was not called.
func (m *Manager) Close() {
	for _, b := range m.all {
		_ = b.discard()
	}
}

// Save writes sandboxes.json.
func (m *Manager) Save() error {
	m.saving.Lock()
	defer m.saving.Unlock()
	f := file{Sandboxes: append([]Saved{}, m.closed...)}
	for _, b := range m.List() {
		if s, there := b.record.file(); there {
			f.Sandboxes = append(f.Sandboxes, s)
		}
	}
	return m.cfg.Store.Save(f)
}

// List returns the sandboxes, sorted by name.
func (m *Manager) List() []*Sandbox {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*Sandbox, 0, len(m.all))
	for _, b := range m.all {
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b *Sandbox) int { return cmp.Compare(a.name, b.name) })
	return out
}

// Find returns the sandbox of that name or id.
func (m *Manager) Find(ref string) (*Sandbox, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.all {
		if b.name == ref || b.id == ref {
			return b, nil
		}
	}
	return nil, control.Refuse(control.CodeNotFound, "meshctl sandbox ls lists those of this node",
		"sandbox %q is not known", ref)
}

// reserve adds the sandbox, unless its name or its namespace is taken.
func (m *Manager) reserve(b *Sandbox) (context.Context, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil || m.ctx.Err() != nil {
		return nil, control.Refuse(control.CodeUnavailable, "try again when meshd runs", "meshd is starting or stopping")
	}
	if n := len(m.all) + len(m.closed); n >= maxSandboxes {
		return nil, control.Refuse(control.CodeTooLarge, "detach sandboxes that are not used",
			"sandboxes: this node has %d, and more are not allowed", n)
	}
	for i := range m.closed {
		if m.closed[i].Name == b.name || m.closed[i].ID == b.name {
			return nil, control.Refuse(control.CodeConflict,
				"choose another --name, or restart meshd with the privileges to enter that one",
				"name: sandbox %q exists, and cannot be entered", b.name)
		}
	}
	for _, o := range m.all {
		if o.name == b.name || o.id == b.name {
			return nil, control.Refuse(control.CodeConflict,
				"choose another --name, or detach that one first: meshctl sandbox detach "+o.name, "name: sandbox %q exists",
				b.name)
		}
		if o.ns.Identity().Ino == b.ns.Identity().Ino && o.ns.Identity().Dev == b.ns.Identity().Dev {
			return nil, control.Refuse(control.CodeConflict, "detach that one first: meshctl sandbox detach "+o.name,
				"the network namespace is already attached as sandbox %q", o.name)
		}
	}
	m.all[b.id] = b
	return m.ctx, nil
}

func (m *Manager) forget(b *Sandbox) {
	m.mu.Lock()
	delete(m.all, b.id)
	m.mu.Unlock()
}

// Stats counts what became of sandboxes since the start, and how many there are by state.
type Stats struct {
	Attached, Detached, Lost  uint64         // sandboxes
	Redirects, RedirectsHeard uint64         // of port 53, made again; those that the kernel told of
	States                    map[string]int // number by control.SandboxStarting and so on
}

// Stats returns the counters.
func (m *Manager) Stats() Stats {
	s := Stats{
		Attached: m.attached.Load(), Detached: m.detached.Load(), Lost: m.lost.Load(),
		Redirects: m.redirects.Load(), RedirectsHeard: m.redirectsHeard.Load(),
		States: map[string]int{
			control.SandboxStarting: 0, control.SandboxReady: 0, control.SandboxDegraded: 0, control.SandboxEnding: 0,
		},
	}
	for _, b := range m.List() {
		s.States[b.describe().State]++
	}
	return s
}
