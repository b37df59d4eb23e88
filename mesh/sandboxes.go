package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"meshd/lb"
	"meshd/mesh/control"
	"meshd/mesh/registry"
	"meshd/mesh/sandbox"
)

// maxSandboxes bounds what a node attaches (N5).
const maxSandboxes = 4096

// sandboxes are the containers of this node that have a name server and a load
// balancer of their own (L4). Each is run by one goroutine.
type sandboxes struct {
	node   *Node
	log    *slog.Logger
	keeper *sandbox.Keeper

	attached, detached, lost atomic.Uint64 // so far
	redirects                atomic.Uint64 // of port 53 that somebody had removed, and that were made again
	redirectsPrompted        atomic.Uint64 // of them, those whose end was heard
	prompts                  *lb.Budget    // of what others write in all of them

	mu  sync.Mutex // guards what follows; held for moments only
	all map[string]*box
	ctx context.Context // of Node.Run; nil before it

	closed []savedSandbox // may still be there, but meshd may not enter; fixed by openSandboxes
	end    sync.WaitGroup // the boxes' goroutines

	saving sync.Mutex // orders writes of sandboxes.json
}

// openSandboxes finds again the namespaces of the sandboxes that were attached
// when the last life ended. One that is gone meanwhile is dropped with its task,
// before that is stated. One that cannot be entered, for want of privileges, is
// kept as it is for a life that can. It comes before restore.
func (n *Node) openSandboxes() error {
	m := &sandboxes{node: n, log: n.log, keeper: newKeeper(), prompts: prompts(), all: map[string]*box{}}
	n.boxes = m
	saved, err := readSandboxes(n.dir)
	if err != nil {
		return err
	}
	for _, s := range saved {
		ns, err := reopen(&s)
		if hasEnded(err) {
			m.log.Info("sandbox lost while meshd was away", "sandbox", s.Name, "reason", err.Error())
			m.drop(&s)
			m.lost.Add(1)
			continue
		}
		n.reg.RestoreHold(s.Networks)
		if err != nil {
			m.log.Error("sandbox cannot be entered", "sandbox", s.Name, "error", err)
			n.notices.Set("sandbox "+s.Name,
				fmt.Sprintf("sandbox %s has no name server, and its load balancer is not kept: %v; restart meshd with "+
					"CAP_SYS_ADMIN and CAP_SYS_PTRACE", s.Name, err))
			m.closed = append(m.closed, s)
			continue
		}
		if m.all[s.ID], err = m.newBox(s, ns, true); err != nil {
			delete(m.all, s.ID)
			return errors.Join(err, ns.Close())
		}
	}
	return nil
}

// reopen opens the namespace of a saved sandbox, if it is still the same one.
func reopen(s *savedSandbox) (*sandbox.Namespace, error) {
	ns, err := sandbox.Open(s.target())
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

// drop forgets the tasks of a sandbox that died while meshd was away, as if they
// were removed now, and puts back its resolv.conf once the node starts.
func (m *sandboxes) drop(s *savedSandbox) {
	m.node.reg.RestoreWithout(s.Networks, s.Service, s.Task)
	if conf, name := s.ResolvConf, s.Name; conf != nil && conf.Root == "" {
		m.node.late = append(m.node.late, func() {
			m.noteErr(name, "resolv.conf not put back", m.keeper.Restore(context.Background(), conf)) // bounded by itself
		})
	}
}

func (m *sandboxes) noteErr(name, what string, err error) {
	if err != nil {
		m.log.Warn("sandbox", "name", name, "what", what, "error", err)
	}
}

// start serves what openSandboxes found, until ctx ends, and lets attach begin.
func (m *sandboxes) start(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx = ctx
	for _, b := range m.all {
		m.end.Go(func() { b.run(ctx) })
	}
}

// wait returns when ctx has ended and every sandbox is let go of, but not taken
// down: the next life takes them over.
func (m *sandboxes) wait(ctx context.Context) error {
	<-ctx.Done()
	m.end.Wait()
	return nil
}

// closeAll lets go of namespaces that run never served.
func (m *sandboxes) closeAll() {
	for _, b := range m.all {
		_ = b.discard()
	}
}

// save writes sandboxes.json.
func (m *sandboxes) save() error {
	m.saving.Lock()
	defer m.saving.Unlock()
	f := sandboxFile{Sandboxes: append([]savedSandbox{}, m.closed...)}
	for _, b := range m.list() {
		if s, there := b.file(); there {
			f.Sandboxes = append(f.Sandboxes, s)
		}
	}
	return m.node.dir.Save(fileSandboxes, f)
}

// list returns the sandboxes, sorted by name.
func (m *sandboxes) list() []*box {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*box, 0, len(m.all))
	for _, b := range m.all {
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b *box) int { return cmp.Compare(a.name, b.name) })
	return out
}

// find returns the sandbox of that name or id.
func (m *sandboxes) find(ref string) (*box, error) {
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
func (m *sandboxes) reserve(b *box) (context.Context, error) {
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

func (m *sandboxes) forget(b *box) {
	m.mu.Lock()
	delete(m.all, b.id)
	m.mu.Unlock()
}

// AttachSandbox implements control.SandboxBackend.
func (n *Node) AttachSandbox(ctx context.Context, req control.AttachSandbox) (control.SandboxAttached, error) {
	p, err := req.Parse()
	if err != nil {
		return control.SandboxAttached{}, err
	}
	b, warnings, err := n.boxes.attach(ctx, &p)
	if err != nil {
		return control.SandboxAttached{}, err
	}
	out := control.SandboxAttached{Sandbox: b.describe()}
	out.Warnings = append(warnings, out.Sandbox.Problems...)
	return out, nil
}

// attach does everything, or nothing.
func (m *sandboxes) attach(ctx context.Context, p *control.ParsedSandbox) (_ *box, warnings []string, _ error) {
	if err := m.node.AdmitTasks(p.Tasks); err != nil {
		return nil, nil, err
	}
	ns, err := sandbox.Open(sandbox.Target{Path: p.Netns, PID: p.PID})
	if err != nil {
		return nil, nil, refuseTarget(p, err)
	}
	s, err := newSandbox(p, ns)
	if err != nil {
		return nil, nil, errors.Join(err, ns.Close())
	}
	b, err := m.newBox(s, ns, false)
	if err != nil {
		return nil, nil, errors.Join(err, ns.Close())
	}
	run, err := m.reserve(b)
	if err != nil {
		return nil, nil, errors.Join(err, b.discard())
	}
	if err := b.holder.Take(); err != nil {
		m.forget(b)
		return nil, nil, errors.Join(control.Refuse(control.CodeConflict, "detach it there first, or stop that meshd",
			"netns: %v", err), b.discard())
	}
	if err := m.node.reg.Hold(ctx, p.Networks); err != nil {
		m.forget(b)
		return nil, nil, errors.Join(err, b.discard())
	}
	err = b.begin()
	m.end.Go(func() { b.run(run) })
	if err != nil {
		err = control.Refuse(control.CodeUnavailable, "free space or fix the data directory, then try again",
			"the sandbox could not be written: %v", err)
	} else {
		warnings, err = b.finish(ctx, p)
	}
	if err != nil {
		b.stop(endUndone)
		<-b.ended
		if !b.gone() { // meshd stops, too: the next life undoes it
			m.noteErr(b.name, "sandbox not written", b.endLater())
		}
		return nil, nil, err
	}
	m.attached.Add(1)
	m.log.Info("sandbox attached", "sandbox", b.name, "networks", p.Networks, "netns", p.Netns, "pid", p.PID)
	m.node.emit(b.event(control.EventSandboxAttached, ""))
	return b, warnings, nil
}

// newSandbox fills the record of a sandbox that is to be.
func newSandbox(p *control.ParsedSandbox, ns *sandbox.Namespace) (savedSandbox, error) {
	id := registry.NewID()[:12]
	s := savedSandbox{
		ID: id, Name: cmp.Or(p.Name, id), Networks: p.Networks, Netns: p.Netns, PID: p.PID,
		Identity: ns.Identity(), Since: time.Now(),
	}
	var err error
	if s.Addresses, err = ns.Addrs(); err != nil {
		return s, err
	}
	if len(s.Addresses) == 0 {
		return s, control.Refuse(control.CodeRefused,
			"give it an address first (ip address add), so that backends can answer it",
			"the network namespace has no address but on its loopback device")
	}
	if len(p.Tasks) > 0 {
		s.Service = strings.ToLower(p.Tasks[0].Service)
		s.Task = cmp.Or(strings.ToLower(p.Tasks[0].ID), registry.NewID())
	}
	return s, nil
}

// finish waits until the sandbox serves, writes it down, and only then makes
// the changes outside of the namespace: resolv.conf and tasks.
func (b *box) finish(ctx context.Context, p *control.ParsedSandbox) (warnings []string, _ error) {
	select {
	case <-b.ready:
	case <-b.ended:
		return nil, control.Refuse(control.CodeConflict, "attach it when it is there to stay",
			"the network namespace ended meanwhile")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	conf, err := b.planResolvConf(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := b.keep(conf); err != nil {
		return nil, control.Refuse(control.CodeUnavailable, "free space or fix the data directory, then try again",
			"the sandbox could not be written: %v", err)
	}
	if conf != nil {
		if err := b.applyResolvConf(ctx, conf); err != nil {
			return nil, control.Refuse(control.CodeRefused, "", "resolv_conf: %v", err)
		}
	}
	beside := b.m.tasks()
	for _, t := range p.Tasks {
		t.ID = b.saved.Task
		if len(t.IPs) == 0 {
			for _, a := range b.saved.Addresses {
				t.IPs = append(t.IPs, a.String())
			}
		}
		added, err := b.m.node.TaskAPI.Register(ctx, t, beside)
		if err != nil {
			return nil, err
		}
		b.mu.Lock()
		b.added = append(b.added, t.Network)
		b.mu.Unlock()
		warnings = append(warnings, added.Warnings...)
	}
	return warnings, nil
}

// DetachSandbox implements control.SandboxBackend.
func (n *Node) DetachSandbox(ctx context.Context, ref string) (control.SandboxDetached, error) {
	b, err := n.boxes.find(ref)
	if err != nil {
		return control.SandboxDetached{}, err
	}
	out := control.SandboxDetached{Sandbox: b.describe()}
	b.stop(endDetached)
	select {
	case <-b.ended:
	case <-ctx.Done():
		return out, ctx.Err()
	}
	if !b.gone() {
		return out, control.Refuse(control.CodeUnavailable, "try again when meshd runs",
			"meshd is stopping; the sandbox stays attached")
	}
	out.Sandbox.State = control.SandboxEnding
	out.Warnings = b.left
	return out, nil
}

// Sandboxes implements control.SandboxBackend.
func (n *Node) Sandboxes(context.Context) ([]control.Sandbox, error) {
	out := []control.Sandbox{}
	for _, b := range n.boxes.list() {
		out = append(out, b.describe())
	}
	return out, nil
}

// Sandbox implements control.SandboxBackend.
func (n *Node) Sandbox(ctx context.Context, ref string) (control.SandboxDetail, error) {
	b, err := n.boxes.find(ref)
	if err != nil {
		return control.SandboxDetail{}, err
	}
	d := control.SandboxDetail{Sandbox: b.describe()}
	b.mu.Lock()
	d.DNSPort, d.Redirected = b.saved.Port, b.redirected
	if c := b.saved.ResolvConf; c != nil {
		d.ResolvConf = c.Root + c.Path
	}
	b.mu.Unlock()
	if d.LB, err = n.lbTable(ctx, b.balancer, ""); errors.Is(err, lb.ErrStopped) {
		err = nil
		d.LB = control.LBTable{Driver: "none", Why: "the sandbox ends", Services: []control.LBService{}}
	}
	d.LB.Sandbox = b.name
	return d, err
}
