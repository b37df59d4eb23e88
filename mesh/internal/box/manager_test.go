package box_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/box"
	"meshd/mesh/internal/box/boxtest"
)

// host is what survives a life of meshd: the disk, the registry and the namespaces.
type host struct {
	disk       boxtest.Disk
	registry   boxtest.Registry
	namespaces boxtest.Namespaces
}

// life is one life of a Manager.
type life struct {
	*box.Manager
	stop func()

	mu     sync.Mutex // guards events
	events []control.EventType
}

func (h *host) start(t *testing.T) *life {
	t.Helper()
	l := &life{}
	m, err := box.Open(box.Config{
		Store: &h.disk, Registry: &h.registry, Balancing: boxtest.Balancing{}, Names: boxtest.Names{},
		Open: h.namespaces.Open, Keeper: box.NewKeeper(), Condition: func(string, string) {},
		Emit: func(es ...control.Event) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, e := range es {
				l.events = append(l.events, e.Type)
			}
		},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Manager = m
	m.Claim()
	ctx, cancel := context.WithCancel(context.Background())
	m.Start(ctx)
	l.stop = func() {
		cancel()
		_ = m.Wait(ctx)
	}
	t.Cleanup(l.stop)
	return l
}

func (l *life) heard(e control.EventType) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.events, e)
}

// web asks for a sandbox with a task.
var web = control.AttachSandbox{
	Name: "web", Netns: "/run/netns/web", Networks: []string{"front", "back"}, Task: &control.AddTask{Service: "web"},
}

func attach(t *testing.T, l *life) control.SandboxAttached {
	t.Helper()
	out, err := l.API().AttachSandbox(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A sandbox registers its task in each of its networks, is served by the next life, and
// leaves nothing when it is detached.
func TestSandboxSurvivesARestart(t *testing.T) {
	h := &host{}
	h.namespaces.Add("/run/netns/web", netip.MustParseAddr("10.1.0.7"))
	first := h.start(t)
	out := attach(t, first)
	if out.Sandbox.State != control.SandboxReady || out.Sandbox.DNS == "" || len(h.registry.Tasks()) != 2 {
		t.Fatalf("%+v, tasks %v", out, h.registry.Tasks())
	}
	first.stop()
	if len(h.registry.Tasks()) != 2 {
		t.Fatal("a restart removed the tasks")
	}
	h.registry.Release(t.Context(), []string{"front", "back"}) // holds are not on disk
	second := h.start(t)
	all, err := second.API().Sandboxes(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != out.Sandbox.ID {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := second.API().DetachSandbox(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if n, holds := h.registry.Tasks(), h.registry.Holds(); len(n) > 0 || len(holds) > 0 {
		t.Errorf("left are tasks %v and holds %v", n, holds)
	}
	second.stop()
	if all := h.start(t).List(); len(all) > 0 {
		t.Errorf("the next life has %d sandboxes", len(all))
	}
}

// A sandbox whose namespace ends is taken down by itself.
func TestSandboxEndsWithItsNamespace(t *testing.T) {
	h := &host{}
	ns := h.namespaces.Add("/run/netns/web", netip.MustParseAddr("10.1.0.7"))
	l := h.start(t)
	attach(t, l)
	ns.End()
	deadline := time.After(10 * time.Second)
	for !l.heard(control.EventSandboxLost) {
		select {
		case <-deadline:
			t.Fatal("its end is not noticed")
		case <-time.After(5 * time.Millisecond):
		}
	}
	if tasks := h.registry.Tasks(); len(tasks) > 0 {
		t.Errorf("left are %v", tasks)
	}
}

// What cannot be attached fully leaves nothing behind.
func TestRefusedSandboxLeavesNothing(t *testing.T) {
	for name, refuse := range map[string]func(h *host){
		"the task is refused":      func(h *host) { h.registry.Refuse(errors.New("refused")) },
		"the disk takes no record": func(h *host) { h.disk.Fail(errors.New("no space left on device")) },
	} {
		h := &host{}
		h.namespaces.Add("/run/netns/web", netip.MustParseAddr("10.1.0.7"))
		l := h.start(t)
		refuse(h)
		if _, err := l.API().AttachSandbox(t.Context(), web); err == nil {
			t.Errorf("%s: attached", name)
		}
		if tasks, holds := h.registry.Tasks(), h.registry.Holds(); len(tasks)+len(holds)+len(l.List()) > 0 {
			t.Errorf("%s: left are tasks %v, holds %v, sandboxes %v", name, tasks, holds, l.List())
		}
	}
}

// One namespace is one sandbox.
func TestNamespaceIsAttachedOnce(t *testing.T) {
	h := &host{}
	h.namespaces.Add("/run/netns/web", netip.MustParseAddr("10.1.0.7"))
	l := h.start(t)
	attach(t, l)
	again := web
	again.Name = "other"
	if _, err := l.API().AttachSandbox(t.Context(), again); !errors.Is(err, control.ErrConflict) {
		t.Error(err)
	}
	if _, err := l.API().DetachSandbox(t.Context(), "other"); !errors.Is(err, control.ErrNotFound) {
		t.Error(err)
	}
}
