//go:build linux

package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"meshd/mesh/source"
	"meshd/mesh/source/docker"
	"meshd/mesh/source/sourcetest"
	"meshd/test/fleet"
	"meshd/test/rig"
)

func TestMain(m *testing.M) {
	fleet.ServeIfAsked()
	os.Exit(rig.TestMain(func(dir string) error { return errors.Join(fleet.Build(dir), build(dir)) }, m.Run))
}

// build builds what containers run.
func build(dir string) error {
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "task"), "./task")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build ./task: %w: %s", err, out)
	}
	return nil
}

// world is a real engine on one host, and a source that looks after it.
type world struct {
	*testing.T
	host    *rig.Host
	dir     string // of the engine's socket, pid and flags
	api     *client.Client
	sink    *sourcetest.Sink
	source  *docker.Source
	created []string
}

// script runs dockerd again and again, with the flags of a file, in mounts of its own.
const script = `
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
while :; do
	rm -f docker.pid
	dockerd --data-root /var/lib/docker --exec-root /run/docker --pidfile "$PWD/docker.pid" --host "unix://$PWD/docker.sock" \
		--storage-driver vfs $(cat flags) || true
	while [ -e stopped ]; do sleep 0.1; done
done`

// newWorld starts an engine and a source, or skips the test where there is no engine.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := newEngine(t, rig.NewTest(t, 1).Hosts()[0])
	w.watch()
	return w
}

// newEngine starts an engine on a host, or skips the test where there is none.
func newEngine(t *testing.T, host *rig.Host) *world {
	t.Helper()
	for _, program := range []string{"dockerd", "containerd", "iptables", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	dir, err := os.MkdirTemp(rig.Dir(), "e") //nolint:usetesting // a socket's path is short
	must(t, err)
	w := &world{T: t, host: host, dir: dir, sink: &sourcetest.Sink{}}
	must(t, os.WriteFile(filepath.Join(dir, "flags"), []byte("--live-restore"), 0o600))
	_, err = w.host.Start("dockerd", "unshare", "--mount", "sh", "-ec", "cd '"+dir+"'\n"+script)
	must(t, err)
	w.api, err = client.New(client.WithHost("unix://" + w.socket()))
	must(t, err)
	t.Cleanup(w.close)
	w.within("the engine answers", func() error {
		_, err := w.api.Ping(t.Context(), client.PingOptions{NegotiateAPIVersion: true})
		return err
	})
	w.importImage()
	return w
}

func (w *world) socket() string { return filepath.Join(w.dir, "docker.sock") }

// watch runs the source.
func (w *world) watch() {
	w.source = docker.New(docker.Config{
		Sockets: []string{w.socket()}, Sink: w.sink, Processes: docker.OpenProcess,
		NodeAddrs: func() []netip.Addr { return []netip.Addr{w.host.Addr} },
		Condition: func(string, string) {},
		Log:       slog.New(slog.NewTextHandler(w.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.source.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
	})
	w.within("the source has looked", func() error {
		if _, n := w.sink.Calls(source.Docker); n == 0 {
			return errors.New("it has not synced")
		}
		return nil
	})
}

// close removes the containers, whose control groups would stay.
func (w *world) close() {
	_ = os.Remove(filepath.Join(w.dir, "stopped"))
	ctx, cancel := context.WithTimeout(context.Background(), rig.Patience(30*time.Second))
	defer cancel()
	for _, id := range w.created {
		_, _ = w.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true}) // it may be gone
	}
	if w.Failed() {
		if text, err := os.ReadFile(filepath.Join(w.host.LogDir(), "host1-dockerd.log")); err == nil {
			w.Logf("dockerd:\n%s", text[max(0, len(text)-4000):])
		}
	}
}

func (w *world) importImage() {
	program, err := os.ReadFile(filepath.Join(rig.Dir(), "task"))
	must(w.T, err)
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	must(w.T, t.WriteHeader(&tar.Header{Name: "task", Mode: 0o755, Size: int64(len(program))}))
	_, err = t.Write(program)
	must(w.T, errors.Join(err, t.Close()))
	reply, err := w.api.ImageImport(w.Context(), client.ImageImportSource{Source: &b, SourceName: "-"}, "task",
		client.ImageImportOptions{Changes: []string{`ENTRYPOINT ["/task"]`}})
	must(w.T, err)
	_, err = io.Copy(io.Discard, reply)
	must(w.T, errors.Join(err, reply.Close()))
}

// create makes a container of the service web.
func (w *world) create(name string, change func(o *client.ContainerCreateOptions)) string {
	w.Helper()
	o := client.ContainerCreateOptions{
		Name: name, Image: "task", HostConfig: &container.HostConfig{},
		Config: &container.Config{Labels: map[string]string{"mesh.network": "front", "mesh.service": "web", "mesh.port": "80"}},
	}
	if change != nil {
		change(&o)
	}
	made, err := w.api.ContainerCreate(w.Context(), o)
	must(w.T, err)
	w.created = append(w.created, made.ID)
	return made.ID
}

func (w *world) start(id string) {
	w.Helper()
	_, err := w.api.ContainerStart(w.Context(), id, client.ContainerStartOptions{})
	must(w.T, err)
}

// tasks returns the tasks that the sink has of a container.
func (w *world) tasks(id string) []source.Task {
	return w.sink.Units()[source.Unit{Origin: source.Docker, Name: id[:25]}]
}

// served waits until a container is served, or is not any more.
func (w *world) served(what, id string, want bool) {
	w.Helper()
	w.within(what, func() error {
		if got := len(w.tasks(id)) > 0; got != want {
			return fmt.Errorf("served: %t", got)
		}
		return nil
	})
}

// within waits for something, and says how long it took.
func (w *world) within(what string, check func() error) {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), rig.Patience(30*time.Second))
	defer cancel()
	begun := time.Now()
	if err := rig.Poll(ctx, check); err != nil {
		if w.source != nil {
			w.Logf("%+v", w.source.Units())
		}
		w.Fatalf("%s: %v", what, err)
	}
	w.Logf("%s: %v", what, time.Since(begun).Round(time.Millisecond))
}

// pid returns the engine's process.
func (w *world) pid() int {
	text, err := os.ReadFile(filepath.Join(w.dir, "docker.pid"))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 while it is written
	return n
}

// restart restarts the engine with other flags, and waits until it answers.
func (w *world) restart(flags string) {
	w.Helper()
	must(w.T, os.WriteFile(filepath.Join(w.dir, "flags"), []byte(flags), 0o600))
	before := w.pid()
	must(w.T, syscall.Kill(before, syscall.SIGTERM))
	w.within("another engine answers", func() error {
		if now := w.pid(); now == 0 || now == before {
			return errors.New("there is no other yet")
		}
		_, err := w.api.Ping(w.Context(), client.PingOptions{})
		return err
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
