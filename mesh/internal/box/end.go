package box

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"meshd/mesh/control"
)

// takeDown removes the sandbox: first its tasks, so that it gets no more connections,
// last its record, so that the next life finishes what this one does not.
func (b *Sandbox) takeDown(why endReason, detail string) {
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	b.leave("record", b.record.change(func(s *Saved) { s.Ending = true }))
	s := b.record.load()
	b.removeTasks(ctx, &s, why)
	b.teardown(ctx)
	if c := s.ResolvConf; c != nil && (why != endLost || c.Root == "") {
		b.leave("resolv.conf", b.m.cfg.Keeper.Restore(ctx, c))
	}
	b.record.remove()
	b.m.forget(b)
	b.leave("record", b.m.Save())
	b.m.cfg.Registry.Release(ctx, s.Networks)
	b.announce(why, detail)
}

// leave adds to what could not be taken down.
func (b *Sandbox) leave(what string, err error) {
	if err == nil {
		return
	}
	b.left = append(b.left, what+": "+err.Error())
	b.log.Warn("sandbox not taken down fully", "what", what, "error", err)
}

// removeTasks removes the sandbox's task from its networks. A sandbox that could not be
// attached may have asked for an id that another task has: that task stays.
func (b *Sandbox) removeTasks(ctx context.Context, s *Saved, why endReason) {
	if s.Task == "" {
		return
	}
	in := s.Networks
	if why == endUndone {
		in = b.record.registeredIn()
	}
	for _, name := range in {
		_, err := b.m.cfg.Registry.RemoveTask(ctx, control.TaskRef{ID: s.Task, Network: name})
		if !errors.Is(err, control.ErrNotFound) && !errors.Is(err, control.ErrRefused) { // another node's, or none
			b.leave("task", err)
		}
	}
}

// teardown removes what meshd made in the namespace, whatever driver made it. The
// namespace may outlive the sandbox. If another process programs it, everything is left
// to that process (L10).
func (b *Sandbox) teardown(ctx context.Context) {
	if err := b.mayProgram(); err != nil {
		b.leave("lb", err)
		return
	}
	defer func() { b.leave("lb", b.holder.Release()) }()
	b.leave("dns", b.ns.RemoveRedirect())
	s := b.record.load()
	failed := b.m.cfg.Balancing.RemoveAll(ctx, b.namespaced(&s))
	for _, driver := range slices.Sorted(maps.Keys(failed)) {
		b.leave(strings.TrimSpace("lb "+driver), failed[driver])
	}
}

// announce says how the sandbox ended.
func (b *Sandbox) announce(why endReason, detail string) {
	switch why {
	case endDetached:
		b.m.detached.Add(1)
		b.log.Info("sandbox detached")
		b.m.cfg.Emit(b.event(control.EventSandboxDetached, ""))
	case endLost:
		b.m.lost.Add(1)
		b.log.Info("sandbox lost", "reason", detail)
		b.m.cfg.Emit(b.event(control.EventSandboxLost, detail))
	}
}

// event returns an event about the sandbox.
func (b *Sandbox) event(t control.EventType, detail string) control.Event {
	s := b.record.load()
	return control.Event{
		Type: t, Sandbox: b.name, Service: s.Service, Task: s.Task, Detail: detail,
		Addresses: append([]netip.Addr{}, s.Addresses...),
	}
}
