//go:build !race

package docker_test

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"meshd/mesh/control"
	"meshd/mesh/source"
	"meshd/mesh/source/docker/dockertest"
	"meshd/state"
)

// What events do not tell, lists find, and it is counted.
func TestLostEvents(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		a := w.engine.Start(web(1))
		run()
		after(time.Minute)
		w.engine.Lose(func(events.Message) bool { return true })
		w.engine.Start(web(2))
		w.engine.Pause(a)
		after(40 * time.Second)
		w.want("lost", "172.17.0.2")
		if n := w.source.Stats().Missed; n != 2 {
			t.Errorf("%d missed, want 2", n)
		}
		b := w.engine.Start(web(3))
		after(40 * time.Second)
		w.engine.Change(b, func(c *dockertest.Container) { c.State = container.StateExited }) // and its process lives
		after(40 * time.Second)
		w.want("an end lost", "172.17.0.2")
	})
}

// An end that comes twice, late or from a former life ends nothing.
func TestRepeatedEvents(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		w.engine.Processes.Invisible = true // so that the engine's word counts
		w.engine.Repeat(3)
		id := w.engine.Start(web(1))
		run()
		after(5 * time.Second)
		for range 20 {
			w.engine.Die(id)
			w.engine.Again(id)
			after(time.Millisecond)
		}
		after(time.Second)
		w.want("restarted many times", "172.17.0.1")
		w.engine.Down(true)
		after(time.Millisecond)
		w.engine.Up()
		after(time.Minute)
		w.want("another stream", "172.17.0.1")
	})
}

// A source that sees no processes takes the engine's word.
func TestInvisibleProcesses(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		w.engine.Processes.Invisible = true
		a := w.engine.Start(web(1))
		run()
		after(5 * time.Second)
		w.want("invisible", "172.17.0.1")
		w.engine.Start(web(2))
		after(soon)
		w.want("the next is believed at once", "172.17.0.1 172.17.0.2")
		w.engine.Delay(time.Minute)
		w.engine.Die(a)
		after(time.Millisecond)
		w.want("ended, without a look", "172.17.0.2")
	})
}

// An engine that hangs is left, and a client made anew when it answers.
func TestEngineHangs(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		w.engine.Start(web(1))
		run()
		after(5 * time.Second)
		w.engine.Hang()
		w.engine.Start(web(2))
		after(3 * time.Minute)
		w.want("hangs", "172.17.0.1")
		if c := w.condition("docker"); c == "" || w.source.Stats().Connected {
			t.Error("nobody is told")
		}
		w.engine.Resume()
		after(lastDelay + 10*time.Second)
		w.want("answers", "172.17.0.1 172.17.0.2")
	})
}

// Many containers at once cost a bounded number of looks at once, and one look each.
func TestManyAtOnce(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		run()
		after(5 * time.Second)
		w.engine.Delay(3 * time.Millisecond)
		const n = 500
		for i := range n {
			w.engine.Start(web(i + 1))
		}
		after(n*3/4*time.Millisecond + 100*time.Millisecond)
		if got := len(w.sink.Units()); got != n {
			t.Errorf("%d of %d are served", got, n)
		}
		if all, most := w.engine.Inspects(); most > 4 || all > 2*n {
			t.Errorf("%d looks, %d at once", all, most)
		}
	})
}

// Many signs of one container cost few looks.
func TestDebounce(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		c := web(1)
		c.Health = container.Healthy
		id := w.engine.Start(c)
		run()
		after(5 * time.Second)
		before, _ := w.engine.Inspects()
		for i := range 1000 {
			w.engine.SetHealth(id, []container.HealthStatus{container.Healthy, container.Unhealthy}[i%2])
			after(time.Millisecond)
		}
		after(soon)
		if all, _ := w.engine.Inspects(); all-before > 52 || all-before < 40 {
			t.Errorf("%d looks in a second", all-before)
		}
		if h, _ := w.sink.Health(source.Ref{Network: "front", ID: id[:25]}); h != state.HealthFailing {
			t.Errorf("the last word is lost: %v", h)
		}
	})
}

// A sink whose disk is full gets the unit again later; an end is not lost meanwhile.
func TestSinkRefuses(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		var mu sync.Mutex
		full := true
		w.sink.Refuse = func(source.Unit, []source.Task) error {
			mu.Lock()
			defer mu.Unlock()
			if full {
				return control.Refuse(control.CodeUnavailable, "", "the disk is full")
			}
			return nil
		}
		a := w.engine.Start(web(1))
		w.engine.Start(web(2))
		run()
		after(10 * time.Second)
		u := w.source.Units()
		if len(u) != 2 || u[0].State != control.UnitWaiting || !strings.Contains(u[0].Problems[0], "disk is full") {
			t.Errorf("%+v", u)
		}
		if _, n := w.sink.Calls(source.Docker); n != 0 {
			t.Error("synced, and nothing was taken")
		}
		w.engine.Remove(a)
		mu.Lock()
		full = false
		mu.Unlock()
		after(40 * time.Second)
		w.want("free again", "172.17.0.2")
		if _, n := w.sink.Calls(source.Docker); n != 1 {
			t.Errorf("synced %d times", n)
		}
	})
}

// Podman's socket differs.
func TestPodman(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		w.engine.Podman()
		w.engine.Processes.Invisible = true
		run()
		after(5 * time.Second)
		id := w.engine.Start(web(1))
		after(time.Second)
		w.want("started", "172.17.0.1")
		w.engine.Die(id)
		after(soon)
		w.want("died", "")
	})
}

// Sandboxes are attached once for each life of a container, and again until it works.
func TestSandbox(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		w.boxErr = control.Refuse(control.CodeConflict, "", "still there")
		c := web(1)
		c.Labels["mesh.sandbox"] = "true"
		id := w.engine.Start(c)
		run()
		after(10 * time.Second)
		if u := w.source.Units(); len(u) != 1 || !strings.Contains(strings.Join(u[0].Problems, ";"), "still there") {
			t.Errorf("%+v", u)
		}
		w.mu.Lock()
		w.boxErr = nil
		w.mu.Unlock()
		after(time.Minute)
		w.engine.Die(id)
		w.engine.Again(id)
		after(time.Second)
		if len(w.boxes) != 2 || w.boxes[0].PID == w.boxes[1].PID || w.boxes[0].Name != "web-1" ||
			!slices.Equal(w.boxes[0].Networks, []string{"front"}) {
			t.Errorf("%+v", w.boxes)
		}
		w.stop()
		run() // the next life of the node
		after(time.Minute)
		if len(w.boxes) != 2 {
			t.Errorf("attached again: %+v", w.boxes)
		}
	})
}

// Containers that ask for what cannot be are told of, and change nothing else.
func TestRefused(t *testing.T) {
	bubble(t, func(w *world, run func()) {
		two := web(1)
		two.Networks["other"] = netip.MustParseAddr("172.18.0.2")
		w.engine.Start(two)
		w.engine.Start(web(2))
		host := web(3)
		host.Mode, host.Networks = network.NetworkHost, nil
		w.engine.Start(host)
		run()
		after(5 * time.Second)
		w.want("the others", "172.17.0.2 192.0.2.1")
		if c := w.condition("docker labels"); !strings.Contains(c, "web-1") || !strings.Contains(c, `"bridge", "other"`) {
			t.Errorf("condition %q", c)
		}
		if s := w.source.Stats(); s.Refused != 1 || s.Containers[control.UnitServed] != 2 {
			t.Errorf("%+v", s)
		}
	})
}
