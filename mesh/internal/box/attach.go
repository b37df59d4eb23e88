package box

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/sandbox"
)

// API is what the control API offers about sandboxes. It is safe for concurrent use.
type API struct{ m *Manager }

var _ control.SandboxBackend = (*API)(nil)

// API returns the API.
func (m *Manager) API() *API { return &API{m} }

// AttachSandbox implements control.SandboxBackend.
func (api *API) AttachSandbox(ctx context.Context, req control.AttachSandbox) (control.SandboxAttached, error) {
	p, err := req.Parse()
	if err != nil {
		return control.SandboxAttached{}, err
	}
	b, warnings, err := api.m.attach(ctx, &p)
	if err != nil {
		return control.SandboxAttached{}, err
	}
	out := control.SandboxAttached{Sandbox: b.describe()}
	out.Warnings = append(warnings, out.Sandbox.Problems...)
	return out, nil
}

// attach attaches a sandbox. If it fails, it leaves nothing behind.
func (m *Manager) attach(ctx context.Context, p *control.ParsedSandbox) (_ *Sandbox, warnings []string, _ error) {
	if err := m.cfg.Registry.AdmitTasks(p.Tasks); err != nil {
		return nil, nil, err
	}
	ns, err := m.cfg.Open(sandbox.Target{Path: p.Netns, PID: p.PID})
	if err != nil {
		return nil, nil, refuseTarget(p, err)
	}
	s, err := newRecord(p, ns)
	if err != nil {
		return nil, nil, errors.Join(err, ns.Close())
	}
	b, err := m.newSandbox(s, ns, false)
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
	if err := m.cfg.Registry.Hold(ctx, p.Networks); err != nil {
		m.forget(b)
		return nil, nil, errors.Join(err, b.discard())
	}
	err = b.record.begin()
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
		if !b.record.gone() { // meshd stops as well: the next life takes it down
			m.logError(b.name, "sandbox not written", b.record.endLater())
		}
		return nil, nil, err
	}
	m.attached.Add(1)
	m.log.Info("sandbox attached", "sandbox", b.name, "networks", p.Networks, "netns", p.Netns, "pid", p.PID)
	m.cfg.Emit(b.event(control.EventSandboxAttached, ""))
	return b, warnings, nil
}

// newRecord returns the record of a sandbox that is to be attached.
func newRecord(p *control.ParsedSandbox, ns Namespace) (Saved, error) {
	id := newID()[:12]
	s := Saved{
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
		s.Task = cmp.Or(strings.ToLower(p.Tasks[0].ID), newID())
	}
	return s, nil
}

// finish waits until the sandbox serves, writes it down, and only then makes the
// changes outside of the namespace, to resolv.conf and to tasks: should this life end in
// between, the next one knows of them.
func (b *Sandbox) finish(ctx context.Context, p *control.ParsedSandbox) (warnings []string, _ error) {
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
	if err := b.record.keep(conf); err != nil {
		return nil, control.Refuse(control.CodeUnavailable, "free space or fix the data directory, then try again",
			"the sandbox could not be written: %v", err)
	}
	if conf != nil {
		if err := b.applyResolvConf(ctx, conf); err != nil {
			return nil, control.Refuse(control.CodeRefused, "", "resolv_conf: %v", err)
		}
	}
	replaces, saved := b.m.tasks(), b.record.load()
	for _, t := range p.Tasks {
		t.ID = saved.Task
		if len(t.IPs) == 0 {
			for _, a := range saved.Addresses {
				t.IPs = append(t.IPs, a.String())
			}
		}
		added, err := b.m.cfg.Registry.Register(ctx, t, replaces)
		if err != nil {
			return nil, err
		}
		b.record.registered(t.Network)
		warnings = append(warnings, added.Warnings...)
	}
	return warnings, nil
}

// DetachSandbox implements control.SandboxBackend.
func (api *API) DetachSandbox(ctx context.Context, ref string) (control.SandboxDetached, error) {
	b, err := api.m.Find(ref)
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
	if !b.record.gone() {
		return out, control.Refuse(control.CodeUnavailable, "try again when meshd runs",
			"meshd is stopping; the sandbox stays attached")
	}
	out.Sandbox.State = control.SandboxEnding
	out.Warnings = b.left
	return out, nil
}

// Sandboxes implements control.SandboxBackend.
func (api *API) Sandboxes(context.Context) ([]control.Sandbox, error) {
	out := []control.Sandbox{}
	for _, b := range api.m.List() {
		out = append(out, b.describe())
	}
	return out, nil
}

// Sandbox implements control.SandboxBackend.
func (api *API) Sandbox(ctx context.Context, ref string) (control.SandboxDetail, error) {
	b, err := api.m.Find(ref)
	if err != nil {
		return control.SandboxDetail{}, err
	}
	d := control.SandboxDetail{Sandbox: b.describe()}
	d.DNSPort, d.Redirected = b.names.port()
	if c := b.record.load().ResolvConf; c != nil {
		d.ResolvConf = c.Root + c.Path
	}
	d.LB, err = b.balancer.Table(ctx)
	d.LB.Sandbox = b.name
	return d, err
}

// newID returns 25 random characters, as Swarm's task ids.
func newID() string { return strings.ToLower(rand.Text())[:25] }
