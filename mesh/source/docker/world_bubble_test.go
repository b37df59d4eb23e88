//go:build !race

package docker_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/source/docker"
	"meshd/mesh/source/docker/dockertest"
	"meshd/mesh/source/sourcetest"
)

// world is a source between an engine and a sink, in a bubble.
type world struct {
	*testing.T
	engine *dockertest.Engine
	sink   *sourcetest.Sink
	source *docker.Source
	stop   func()

	mu         sync.Mutex
	conditions map[string]string
	boxes      []control.AttachSandbox
	boxErr     error
}

func (w *world) AttachSandbox(_ context.Context, r control.AttachSandbox) (control.SandboxAttached, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.boxErr == nil {
		w.boxes = append(w.boxes, r)
	}
	return control.SandboxAttached{}, w.boxErr
}

func (w *world) Sandboxes(context.Context) (all []control.Sandbox, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.boxes {
		all = append(all, control.Sandbox{Name: b.Name, PID: b.PID, State: control.SandboxReady})
	}
	return all, nil
}

func (w *world) condition(key string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conditions[key]
}

// bubble runs a test with a world; run starts the source.
func bubble(t *testing.T, f func(w *world, run func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, engine: dockertest.New(), sink: &sourcetest.Sink{}, conditions: map[string]string{}}
		run := func() {
			w.source = docker.New(docker.Config{
				Sockets: []string{"/run/docker.sock"}, Sink: w.sink, Sandboxes: w,
				NodeAddrs: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.1")} },
				Processes: w.engine.Processes.Open, Dial: w.engine.Dial,
				Condition: func(key, text string) {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.conditions[key] = text
				},
				Log: slog.New(slog.DiscardHandler),
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- w.source.Run(ctx) }()
			w.stop = func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				w.stop = func() {}
			}
		}
		f(w, run)
		w.stop()
		w.engine.Close()
		synctest.Wait()
	})
}

// web is a container of a service.
func web(n int) dockertest.Container {
	return dockertest.Container{
		Name:     fmt.Sprintf("web-%d", n),
		Labels:   map[string]string{"mesh.network": "front", "mesh.service": "web", "mesh.port": "80"},
		Networks: map[string]netip.Addr{"bridge": netip.AddrFrom4([4]byte{172, 17, byte(n >> 8), byte(n)})},
	}
}

// after lets time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// served are the addresses of all tasks, sorted.
func (w *world) served() string {
	var all []string
	for _, tasks := range w.sink.Units() {
		for i := range tasks {
			all = append(all, tasks[i].IPs...)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (w *world) want(what, served string) {
	w.Helper()
	if got := w.served(); got != served {
		w.Errorf("%s: served are %q, want %q", what, got, served)
	}
}

// soon is within what the source promises: the debounce, and what looks take.
const soon = 50 * time.Millisecond
