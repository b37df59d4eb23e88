//go:build linux

package engine

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"meshd/test/fleet"
)

// pidOf returns the container's process.
func (w *world) pidOf(id string) int {
	w.Helper()
	r, err := w.api.ContainerInspect(w.Context(), id, client.ContainerInspectOptions{})
	must(w.T, err)
	return r.Container.State.Pid
}

// resolve asks at 127.0.0.11 inside a container, as its programs do.
func (w *world) resolve(id, name string) string {
	w.Helper()
	out, err := w.host.Output("nsenter", "-t", strconv.Itoa(w.pidOf(id)), "-n", "dig", "+short", "+tries=1",
		"+time=5", "@127.0.0.11", name)
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// On a network of the engine, its own server sits at 127.0.0.11 already. Ours answers first,
// and names that only the engine knows go on resolving, also after its restart, which moves
// its server to another port.
func TestBareNames(t *testing.T) {
	if _, err := exec.LookPath("dig"); err != nil {
		t.Skip("dig is not installed")
	}
	f := fleet.NewTest(t, 1)
	w := newEngine(t, f.Rig.Hosts()[0])
	n := f.AddNode(w.host, nil)
	must(t, n.Start(t.Context()))
	for _, args := range [][]string{
		{"network", "create", "front", "--subnet", "10.96.0.0/16"},
		{"task", "add", "--network", "front", "--service", "web", "--ip", w.host.Addr.String(), "--port", "80"},
	} {
		if out, err := n.Ctl(args...); err != nil {
			t.Fatal(out, err)
		}
	}
	_, err := w.api.NetworkCreate(t.Context(), "back", client.NetworkCreateOptions{Driver: "bridge"})
	must(t, err)
	in := func(o *client.ContainerCreateOptions) {
		o.Config.Labels, o.HostConfig.NetworkMode = nil, container.NetworkMode("back")
	}
	cache, user := w.create("cache", in), w.create("user", in)
	w.start(cache)
	w.start(user)
	engines := w.resolve(user, "cache")
	if !strings.HasPrefix(engines, "172.") {
		t.Fatalf("the engine does not know its own container: %q", engines)
	}
	out, err := n.Ctl("sandbox", "attach", "--pid", strconv.Itoa(w.pidOf(user)), "--network", "front", "--name", "user")
	if err != nil {
		t.Fatal(out, err)
	}
	check := func(what string) {
		t.Helper()
		for name, want := range map[string]string{"web": "10.96.", "cache": engines, "web.front": "10.96."} {
			w.within(what+": "+name, func() error {
				if got := w.resolve(user, name); !strings.HasPrefix(got, want) {
					return fmt.Errorf("%q, want %q", got, want)
				}
				return nil
			})
		}
		if got := w.resolve(user, "nobody"); got != "" {
			t.Errorf("%s: a name that neither knows is %q", what, got)
		}
	}
	check("attached")
	w.restart("--live-restore")
	check("after the engine's restart")
}
