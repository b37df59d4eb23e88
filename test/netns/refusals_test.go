//go:build linux

package netns

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/test/fleet"
)

// TestMeshctlRefusals gives bad input and wants the right exit code, a message
// that names what is wrong, and the daemon unharmed.
func TestMeshctlRefusals(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 1)
	n := nodes[0]
	createNetwork(t, nodes)
	add := []string{"task", "add", "--network", network, "--service", "web", "--ip", "10.1.1.2"}
	with := func(more ...string) []string { return append(append([]string{}, add...), more...) }
	ctl(t, n, with("--id", "taken", "--port", "80")...)
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"network", "create", "other", "--subnet", "10.96.0.0/33"}, 2, "10.96.0.0/33"},
		{[]string{"network", "create", "other", "--subnet", "ten"}, 2, "ten"},
		{[]string{"network", "create", "other", "--subnet", "10.96.128.0/24"}, 1, network},
		{[]string{"network", "create", network, "--subnet", "10.98.0.0/16"}, 1, "10.96.0.0/16"},
		{with("--id", "taken2", "--port", "70000"), 2, "70000"},
		{with("--id", "taken2", "--port", "80/icmp"), 2, "icmp"},
		{[]string{"task", "add", "--network", network, "--service", "web", "--ip", "10.1.1.3", "--id", "taken"}, 1, "taken"},
		{[]string{"task", "add", "--network", "nowhere", "--service", "web", "--ip", "10.1.1.3"}, 1, "nowhere"},
		{[]string{"task", "add", "--network", network, "--service", "no good", "--ip", "10.1.1.3"}, -1, "no good"},
		{[]string{"task", "add", "--network", network, "--service", "web", "--ip", "10.1.1"}, 2, "10.1.1"},
		{[]string{"task", "rm", "unknown"}, 1, "unknown"},
		{[]string{"service", "inspect", "unknown", "--network", network}, 1, "unknown"},
		{[]string{"frobnicate"}, 2, "frobnicate"},
	} {
		checkRefusal(t, n, tt.args, tt.code, tt.says)
	}
	elsewhere := *n
	elsewhere.Socket = "/nowhere.sock"
	checkRefusal(t, &elsewhere, []string{"status"}, 3, "/nowhere.sock")
	if _, err := n.API.Status(t.Context()); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// checkRefusal wants an exit code (-1 is 1 or 2) and a word in the message.
func checkRefusal(t *testing.T, n *fleet.Node, args []string, code int, says string) {
	t.Helper()
	_, err := n.Ctl(args...)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Errorf("meshctl %s: error %v, want exit code %d", strings.Join(args, " "), err, code)
		return
	}
	if got := exit.ExitCode(); got != code && (code >= 0 || got < 1 || got > 2) {
		t.Errorf("meshctl %s: exit code %d, want %d", strings.Join(args, " "), got, code)
	}
	if !strings.Contains(string(exit.Stderr), says) {
		t.Errorf("meshctl %s says %q, want something of %q", strings.Join(args, " "), exit.Stderr, says)
	}
}

// TestMeshdRefusals starts daemons that cannot run: each ends soon, with a
// message that names what is wrong.
func TestMeshdRefusals(t *testing.T) {
	t.Parallel()
	f, nodes := fleet.Up(t, 1)
	running := nodes[0]
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("not what you expect"), 0o600))
	for _, tt := range []struct {
		name string
		args []string
		says string
	}{
		{"data directory is a file", []string{"--data-dir", file}, file},
		{"socket in use", []string{"--socket", running.Socket}, running.Socket},
		{"bad bind", []string{"--bind", "300.1.1.1"}, "300.1.1.1"},
		{"somebody else's address", []string{"--bind", "192.0.2.1"}, "192.0.2.1"},
		{"bad driver", []string{"--lb", "magic"}, "magic"},
		{"bad key", []string{"--key-file", file}, "key"},
		{"no key file", []string{"--key-file", file + ".none"}, file + ".none"},
		{"bad node name", []string{"--node", "no good"}, "no good"},
		{"unknown flag", []string{"--frobnicate"}, "frobnicate"},
	} {
		h, err := f.Rig.AddHost("refused-" + strings.ReplaceAll(strings.ReplaceAll(tt.name, " ", "-"), "'", ""))
		must(t, err)
		n := f.AddNode(h, tt.args)
		checkEnds(t, f, n, tt.name, tt.says)
	}
}

// checkEnds starts the daemon and wants it to end with an error.
func checkEnds(t *testing.T, f *fleet.Fleet, n *fleet.Node, name, says string) {
	t.Helper()
	p, err := n.Host.Start("meshd", f.Meshd, n.Args()...)
	must(t, err)
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Errorf("%s: the daemon still runs after 10 s", name)
		p.Kill()
		return
	}
	log, _ := os.ReadFile(p.Log)
	if p.Err() == nil || !strings.Contains(string(log), says) || bytes.Contains(log, []byte("goroutine ")) {
		t.Errorf("%s: ended with %v and said %q; want an error about %q", name, p.Err(), log, says)
	}
}

// TestCorruptedData damages every file of a data directory in turn: the daemon
// refuses to start, or sets what it can do without aside, but never destroys
// what it could not read, and a task that it has lost is never silently lost.
func TestCorruptedData(t *testing.T) {
	t.Parallel()
	f, nodes := fleet.Up(t, 1)
	n := nodes[0]
	createNetwork(t, nodes)
	tasks := run(t, "web", n)
	must(t, n.Proc.Stop(10*time.Second))
	files, err := filepath.Glob(filepath.Join(n.DataDir, "*"))
	must(t, err)
	for _, path := range files {
		if info, err := os.Stat(path); err != nil || info.IsDir() || info.Size() == 0 {
			continue
		}
		good, err := os.ReadFile(path)
		must(t, err)
		bad := append([]byte("\x00garbage"), good[:len(good)/2]...)
		must(t, os.WriteFile(path, bad, 0o600))
		p, err := n.Host.Start("meshd", f.Meshd, n.Args()...)
		must(t, err)
		n.Proc = p
		ended := refusesOrServes(t, n, tasks)
		if kept, err := keeps(n.DataDir, bad); err != nil || !kept {
			t.Errorf("%s: what could not be read is gone (%v); the daemon ended: %v", path, err, ended)
		}
		p.Kill()
		must(t, os.WriteFile(path, good, 0o600))
	}
	must(t, n.Start(t.Context()))
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return resolves(ctx, tasks[0], "tasks.web", tasks) })
}

// refusesOrServes waits until the daemon has ended with a clear message, or
// serves the tasks in spite of the damage.
func refusesOrServes(t *testing.T, n *fleet.Node, tasks []*fleet.Task) (ended bool) {
	t.Helper()
	fleet.Within(t, 15*time.Second, func(ctx context.Context) error {
		select {
		case <-n.Proc.Done():
			ended = true
			return nil
		default:
			return resolves(ctx, tasks[0], "tasks.web", tasks)
		}
	})
	if log := fleet.Tail(n.Proc.Log, 30); ended && (strings.Contains(log, "goroutine ") ||
		!strings.Contains(log, n.DataDir)) {
		t.Errorf("the daemon ended without naming the damaged file:\n%s", log)
	}
	return ended
}

// keeps tells whether some file under dir has exactly this content.
func keeps(dir string, content []byte) (bool, error) {
	found := false
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		found = found || bytes.Equal(text, content)
		return err
	})
	return found, err
}
