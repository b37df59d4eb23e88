package mesh

import (
	"context"
	"errors"
	"net/netip"

	"meshd/lb"
	"meshd/mesh/control"
)

// takeDown removes the sandbox: first its tasks, so that nobody is sent to it
// any more, last its record. What cannot be removed is told.
func (b *box) takeDown(why endReason, detail string) {
	ctx, cancel := context.WithTimeout(context.Background(), boxEnd)
	defer cancel()
	b.leave("record", b.change(func(s *savedSandbox) { s.Ending = true }))
	s, _ := b.record()
	b.removeTasks(ctx, &s, why)
	b.teardown(ctx)
	if c := s.ResolvConf; c != nil && (why != endLost || c.Root == "") {
		b.leave("resolv.conf", b.m.keeper.Restore(ctx, c))
	}
	b.mu.Lock()
	b.begun, b.kept, b.down = false, false, true
	b.mu.Unlock()
	b.m.forget(b)
	b.leave("record", b.m.save())
	b.m.node.reg.Release(ctx, s.Networks)
	b.tell(why, detail)
}

// leave notes what could not be taken down.
func (b *box) leave(what string, err error) {
	if err == nil {
		return
	}
	b.left = append(b.left, what+": "+err.Error())
	b.log.Warn("sandbox not taken down fully", "what", what, "error", err)
}

// removeTasks removes the sandbox's task from its networks. What could not be
// attached may have asked for an id that another task has: that one stays.
func (b *box) removeTasks(ctx context.Context, s *savedSandbox, why endReason) {
	if s.Task == "" {
		return
	}
	in := s.Networks
	if why == endUndone {
		b.mu.Lock()
		in = b.added
		b.mu.Unlock()
	}
	for _, name := range in {
		_, err := b.m.node.RemoveTask(ctx, control.TaskRef{ID: s.Task, Network: name})
		if !errors.Is(err, control.ErrNotFound) && !errors.Is(err, control.ErrRefused) { // somebody else's, or nobody's
			b.leave("task", err)
		}
	}
}

// teardown removes what is ours in the namespace, whatever driver made it. Of
// a namespace that is gone this is in vain, but it may live on without us.
// What is in a namespace that another process programs is left to that one.
func (b *box) teardown(ctx context.Context) {
	if err := b.mayProgram(); err != nil {
		b.leave("lb", err)
		return
	}
	defer func() { b.leave("lb", b.holder.Release()) }()
	b.leave("dns", b.ns.RemoveRedirect())
	ds, err := drivers(b.m.node.sandboxDriver("auto"), b.ns.Path(), hosting{}, b.log)
	b.leave("lb", err)
	for _, d := range ds {
		if errors.Is(d.Probe(ctx), lb.ErrUnsupported) {
			continue // it cannot have made anything
		}
		b.leave("lb "+d.Name(), errors.Join(d.Teardown(ctx), d.Close()))
	}
}

// tell says how the sandbox ended.
func (b *box) tell(why endReason, detail string) {
	switch why {
	case endDetached:
		b.m.detached.Add(1)
		b.log.Info("sandbox detached")
		b.m.node.emit(b.event(control.EventSandboxDetached, ""))
	case endLost:
		b.m.lost.Add(1)
		b.log.Info("sandbox lost", "reason", detail)
		b.m.node.emit(b.event(control.EventSandboxLost, detail))
	}
}

// event makes an event about the sandbox.
func (b *box) event(t control.EventType, detail string) control.Event {
	s, _ := b.record()
	return control.Event{
		Type: t, Sandbox: b.name, Service: s.Service, Task: s.Task, Detail: detail,
		Addresses: append([]netip.Addr{}, s.Addresses...),
	}
}
