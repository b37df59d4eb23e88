//go:build !race

package docker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"meshd/mesh/control"
	"meshd/mesh/source"
	"meshd/mesh/source/docker/dockertest"
	"meshd/state"
)

func TestLifeOfAContainer(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		run()
		after(time.Second)
		id := w.engine.Start(web(1))
		after(soon)
		w.want("started", "172.17.0.1")
		tasks := w.sink.Units()[source.Unit{Origin: source.Docker, Name: id[:25]}]
		if len(tasks) != 1 || tasks[0].Name != "web-1" || tasks[0].Hostname != id[:12] || tasks[0].ID != id[:25] ||
			tasks[0].Location != "web-1" || !slices.Equal(tasks[0].Ports, []string{"80"}) ||
			tasks[0].Health != state.HealthPassing {
			t.Errorf("%+v", tasks)
		}
		w.engine.Pause(id)
		after(soon)
		w.want("paused", "")
		w.engine.Unpause(id)
		after(soon)
		w.want("unpaused", "172.17.0.1")
		w.engine.Rename(id, "front-1")
		after(soon)
		if tasks := w.sink.Units()[source.Unit{Origin: source.Docker, Name: id[:25]}]; tasks[0].Name != "front-1" {
			t.Errorf("renamed: %+v", tasks)
		}
		w.engine.Restarting(id)
		after(soon)
		w.want("restarting", "")
		w.engine.Again(id)
		after(soon)
		w.want("again", "172.17.0.1")
		w.engine.Stop(id)
		after(soon)
		w.want("stopped", "")
		w.engine.Again(id)
		after(soon)
		w.engine.Remove(id)
		after(soon)
		w.want("removed", "")
		after(5 * time.Minute)
		if u := w.source.Units(); len(u) != 0 {
			t.Errorf("still looked after: %+v", u)
		}
		if s := w.source.Stats(); s.Missed != 0 || s.Connections != 1 || !s.Connected {
			t.Errorf("%+v", s)
		}
	})
}

// Nothing is removed of what a former life stated before everything was handed over once.
func TestSynced(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		id := w.engine.Start(web(1))
		held := source.Unit{Origin: source.Docker, Name: "0123456789012345678901234"}
		w.sink.Hold(held, source.Task{AddTask: control.AddTask{IPs: []string{"10.0.0.9"}}})
		w.engine.Down(true)
		run()
		after(time.Minute)
		w.want("engine away", "10.0.0.9")
		if c := w.condition("docker"); !strings.Contains(c, "does not answer since") {
			t.Errorf("condition %q", c)
		}
		w.engine.Up()
		after(lastDelay + soon)
		w.want("engine back", "172.17.0.1")
		if _, n := w.sink.Calls(source.Docker); n != 1 || w.condition("docker") != "" {
			t.Errorf("synced %d times; condition %q", n, w.condition("docker"))
		}
		_ = id
	})
}

const lastDelay = 31 * time.Second

// A unit that cannot be looked at at the start is kept, not dropped.
func TestUnreadableContainerIsKept(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		id := w.engine.Start(web(1))
		unit := source.Unit{Origin: source.Docker, Name: id[:25]}
		w.sink.Hold(unit, source.Task{AddTask: control.AddTask{IPs: []string{"10.0.0.9"}}})
		w.engine.Delay(time.Minute) // a look takes longer than its limit
		run()
		after(20 * time.Second)
		w.want("cannot be looked at", "10.0.0.9")
		if _, n := w.sink.Calls(source.Docker); n == 0 {
			t.Error("never synced")
		}
		w.engine.Delay(0)
		after(time.Minute)
		w.want("looked at", "172.17.0.1")
	})
}

// An engine that is away changes nothing; the kernel tells which containers end.
func TestEngineAway(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		a := w.engine.Start(web(1))
		w.engine.Start(web(2))
		run()
		after(5 * time.Second)
		w.want("before", "172.17.0.1 172.17.0.2")
		w.engine.Down(true)
		after(time.Minute)
		w.want("away", "172.17.0.1 172.17.0.2")
		w.engine.EndProcess(a)
		after(time.Millisecond)
		w.want("one has ended meanwhile", "172.17.0.2")
		w.engine.Change(a, func(c *dockertest.Container) { c.State = container.StateExited })
		w.engine.Up()
		after(time.Minute)
		w.want("back", "172.17.0.2")
		w.engine.Down(false)
		after(time.Second)
		w.want("restarted without live-restore", "")
	})
}

// An engine that is restarted under a running container says that it is starting: it has
// forgotten its verdict, and the mesh has not.
func TestVerdictOutlivesTheEngine(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		c := web(1)
		c.Health = container.Starting
		id := w.engine.Start(c)
		ref := source.Ref{Network: "front", ID: id[:25]}
		want := func(what string, h state.Health) {
			t.Helper()
			if got, _ := w.sink.Health(ref); got != h {
				t.Errorf("%s: %v, want %v", what, got, h)
			}
		}
		run()
		after(5 * time.Second)
		want("new", state.HealthStarting)
		w.engine.SetHealth(id, container.Healthy)
		after(soon)
		want("healthy", state.HealthPassing)
		w.engine.Down(true)
		after(time.Second)
		w.engine.Up()
		after(time.Minute)
		want("live-restore", state.HealthPassing)
		w.engine.SetHealth(id, container.Unhealthy)
		after(soon)
		want("unhealthy", state.HealthFailing)
		w.engine.Die(id)
		w.engine.Change(id, func(c *dockertest.Container) { c.Health = container.Starting })
		w.engine.Again(id)
		after(soon)
		want("another life", state.HealthStarting)
	})
}

// After a restart of the node, what an engine says that has forgotten its verdict is no
// verdict either.
func TestVerdictOutlivesTheNode(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		c := web(1)
		c.Health = container.Starting
		id := w.engine.Start(c)
		after(time.Hour)
		run()
		after(5 * time.Second)
		if h, known := w.sink.Health(source.Ref{Network: "front", ID: id[:25]}); known {
			t.Errorf("a verdict is stated: %v", h)
		}
	})
}
