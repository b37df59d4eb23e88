//go:build linux

package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"meshd/mesh/control"
	"meshd/mesh/source"
	"meshd/state"
)

// What happens to a container is what happens to its task, whatever the engine says of it
// in which order.
func TestContainers(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.create("web-1", nil)
	w.start(id)
	w.served("started", id, true)
	if k := w.tasks(id)[0]; k.Name != "web-1" || k.Hostname != id[:12] || len(k.IPs) != 1 || k.IPs[0][:7] != "172.17." {
		t.Errorf("%+v", k)
	}
	_, err := w.api.ContainerPause(ctx, id, client.ContainerPauseOptions{})
	must(t, err)
	w.served("paused", id, false)
	_, err = w.api.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{})
	must(t, err)
	w.served("unpaused", id, true)
	_, err = w.api.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: "front-1"})
	must(t, err)
	w.within("renamed", func() error {
		if k := w.tasks(id); len(k) != 1 || k[0].Name != "front-1" {
			return fmt.Errorf("%+v", k)
		}
		return nil
	})
	_, err = w.api.ContainerKill(ctx, id, client.ContainerKillOptions{})
	must(t, err)
	w.served("killed", id, false)
	w.start(id)
	w.served("started again", id, true)
	_, err = w.api.ContainerStop(ctx, id, client.ContainerStopOptions{})
	must(t, err)
	w.served("stopped", id, false)
	_, err = w.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{})
	must(t, err)

	hungry := w.create("hungry", func(o *client.ContainerCreateOptions) {
		o.Config.Cmd, o.HostConfig.Memory, o.HostConfig.MemorySwap = []string{"eat"}, 16<<20, 16<<20
	})
	w.start(hungry)
	w.served("hungry", hungry, true)
	w.served("out of memory", hungry, false)

	wrong := w.create("wrong", func(o *client.ContainerCreateOptions) { o.Config.Labels["mesh.port"] = "http" })
	w.start(wrong)
	w.within("refused", func() error {
		for _, u := range w.source.Units() {
			if u.Unit == "wrong" && u.State == control.UnitRefused {
				return nil
			}
		}
		return fmt.Errorf("%+v", w.source.Units())
	})
	if n := w.source.Stats().Missed; n != 0 {
		t.Errorf("%d changes were told by no event", n)
	}
}

// The engine's check is the verdict, and outlives the engine.
func TestHealth(t *testing.T) {
	w := newWorld(t)
	id := w.create("web-1", func(o *client.ContainerCreateOptions) {
		o.Config.Healthcheck = &container.HealthConfig{
			Test: []string{"CMD", "/task", "check"}, Interval: time.Second, Timeout: 20 * time.Second, Retries: 1,
		}
	})
	w.start(id)
	ref := source.Ref{Network: "front", ID: id[:25]}
	verdict := func(what string, want state.Health) {
		t.Helper()
		w.within(what, func() error {
			if got, known := w.sink.Health(ref); got != want || !known {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	}
	run := func(command string) {
		t.Helper()
		e, err := w.api.ExecCreate(t.Context(), id, client.ExecCreateOptions{Cmd: []string{"/task", command}})
		must(t, err)
		_, err = w.api.ExecStart(t.Context(), e.ID, client.ExecStartOptions{Detach: true})
		must(t, err)
	}
	verdict("unhealthy", state.HealthFailing)
	run("heal")
	verdict("healed", state.HealthPassing)
	lists := w.source.Stats().Lists
	w.restart("--live-restore")
	w.within("the source has looked twice", func() error {
		if n := w.source.Stats().Lists; n < lists+2 {
			return fmt.Errorf("%d lists", n-lists)
		}
		return nil
	})
	verdict("after the engine's restart", state.HealthPassing)
}

// An engine that is restarted under its containers changes nothing; one that is away says
// nothing, and the kernel does; one that takes its containers with it takes their tasks.
func TestEngineRestarts(t *testing.T) {
	w := newWorld(t)
	a, b := w.create("web-1", nil), w.create("web-2", nil)
	w.start(a)
	w.start(b)
	w.served("a", a, true)
	w.served("b", b, true)
	replaced, _ := w.sink.Calls(source.Docker)

	must(t, os.WriteFile(filepath.Join(w.dir, "stopped"), nil, 0o600))
	inspected, err := w.api.ContainerInspect(t.Context(), b, client.ContainerInspectOptions{})
	must(t, err)
	must(t, syscall.Kill(w.pid(), syscall.SIGTERM)) // its containers run on
	w.within("the source knows that the engine is away", func() error {
		if w.source.Stats().Connected {
			return errors.New("connected")
		}
		return nil
	})
	if again, _ := w.sink.Calls(source.Docker); again != replaced {
		t.Errorf("%d handovers, %d before the engine went", again, replaced)
	}
	must(t, syscall.Kill(inspected.Container.State.Pid, syscall.SIGKILL))
	w.served("ended while the engine is away", b, false)
	w.served("the other", a, true)
	must(t, os.Remove(filepath.Join(w.dir, "stopped")))
	w.within("the source knows that the engine is back", func() error {
		if !w.source.Stats().Connected {
			return errors.New("not connected")
		}
		return nil
	})
	w.served("with the engine back", a, true)
	w.restart("")
	w.restart("") // at the latest now, it takes its containers with it
	w.served("restarted without live-restore", a, false)
}

// Many containers that are started at once are served soon, and looked at once or twice.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	const n = 20
	ids := make([]string, n)
	for i := range ids {
		ids[i] = w.create(fmt.Sprintf("web-%d", i+1), nil)
	}
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() {
			if _, err := w.api.ContainerStart(t.Context(), id, client.ContainerStartOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		w.served("started with others", id, true)
	}
	if s := w.source.Stats(); s.Inspects > 4*n || s.Missed != 0 {
		t.Errorf("%+v", s)
	}
}
