package mesh_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meshd/mesh/config"
	"meshd/mesh/control"
)

func files(t *testing.T, dir string) string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// A start that fails, however late, claims nothing of the data directory.
func TestFailedStartClaimsNothing(t *testing.T) {
	busy := start(t, config.Config{Node: "busy", DNS: []string{"127.0.0.1:0"}})
	s, err := busy.Status(t.Context())
	busy.must(err)
	for name, cfg := range map[string]config.Config{
		"no directory for the socket": {Node: "wrong", Socket: "/nonexistent/meshd.sock"},
		"DNS address in use":          {Node: "wrong", DNS: s.DNS},
		"gossip address in use":       {Node: "wrong", Bind: s.Bind},
	} {
		cfg.DataDir = t.TempDir()
		if _, err := tryStart(t, cfg); err == nil {
			t.Fatalf("%s: started", name)
		}
		if got := files(t, cfg.DataDir); got != "lock" {
			t.Errorf("%s: left %s", name, got)
		}
		right, err := tryStart(t, config.Config{Node: "right", DataDir: cfg.DataDir})
		if err != nil {
			t.Errorf("%s: and then: %v", name, err)
			continue
		}
		right.stop()
	}
}

// A start that fails moves nothing aside either: the one that succeeds does, and
// says so.
func TestFailedStartMovesNothing(t *testing.T) {
	busy := start(t, config.Config{Node: "busy", DNS: []string{"127.0.0.1:0"}})
	s, err := busy.Status(t.Context())
	busy.must(err)
	dir := t.TempDir()
	for _, file := range []string{"peers.json", "sysctls.json"} {
		busy.must(os.WriteFile(filepath.Join(dir, file), []byte("[{"), 0o600))
	}
	if _, err := tryStart(t, config.Config{Node: "a", DataDir: dir, DNS: s.DNS}); err == nil {
		t.Fatal("started")
	}
	if got := files(t, dir); got != "lock peers.json sysctls.json" {
		t.Errorf("left %s", got)
	}
	a := start(t, config.Config{Node: "a", DataDir: dir})
	if got := files(t, dir); !strings.Contains(got, "peers.json.corrupted") ||
		!strings.Contains(got, "sysctls.json.corrupted") {
		t.Errorf("after the start there is %s", got)
	}
	if s, err := a.Status(t.Context()); err != nil || len(s.Degraded) != 2 {
		t.Errorf("degraded %q, %v", s.Degraded, err)
	}
}

// What a kill left half written is removed; what is not ours stays.
func TestHalfWrittenFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".tasks.json.123", ".node.json.4", ".meshd.db.5", ".tasks.jsonx", "mine"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, config.Config{Node: "a", DataDir: dir}).stop()
	if got := files(t, dir); strings.Contains(got, ".123") || strings.Contains(got, ".node") ||
		strings.Contains(got, ".meshd") ||
		!strings.Contains(got, ".tasks.jsonx") || !strings.Contains(got, "mine") {
		t.Errorf("there is %s", got)
	}
}

// Peers are a cache: a file of them that cannot be read is moved aside, and told.
func TestCorruptedPeersAreMovedAside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "peers.json")
	if err := os.WriteFile(path, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := start(t, config.Config{Node: "a", DataDir: dir})
	s, err := a.Status(t.Context())
	a.must(err)
	if !strings.Contains(strings.Join(s.Degraded, "\n"), path+".corrupted") {
		t.Errorf("degraded: %v", s.Degraded)
	}
	if b, err := os.ReadFile(path + ".corrupted"); err != nil || string(b) != "[{" {
		t.Errorf("%q, %v", b, err)
	}
}

// A data directory that is removed is made again, with everything in it.
func TestRemovedDirectoryIsMadeAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	a := start(t, config.Config{Node: "a", DataDir: dir})
	a.network("net", "10.96.0.0/16")
	a.task("net", "web", "t1", "10.1.0.1")
	eventually(t, func() error { return os.RemoveAll(dir) }) // a write may come in between
	eventually(t, func() error {
		if got := files(t, dir); !strings.Contains(got, "node.json") || !strings.Contains(got, "meshd.db") ||
			!strings.Contains(got, "lock") {
			return errors.New("there is " + got)
		}
		return nil
	})
	a.stop()
	a = start(t, config.Config{Node: "a", DataDir: dir})
	wantTasks(t, a, "net", "web", "t1@a")
}

// A directory that takes nothing is told while it lasts, and a daemon that ends
// with something unsaved says so.
func TestBrokenDirectoryIsTold(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	a := start(t, config.Config{Node: "a", DataDir: dir})
	a.network("net", "10.96.0.0/16")
	eventually(t, func() error { return os.RemoveAll(dir) })
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // nothing can be made there
		t.Fatal(err)
	}
	_, err := a.AddTask(t.Context(), control.AddTask{Network: "net", Service: "web", IPs: []string{"10.1.0.1"}})
	if !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("registered: %v", err)
	}
	eventually(t, func() error {
		s, err := a.Status(t.Context())
		if text := strings.Join(s.Degraded, "\n"); err == nil && !strings.Contains(text, dir) {
			err = fmt.Errorf("degraded: %v", s.Degraded)
		}
		return err
	})
	a.wantErr = "what was registered since the start is lost"
	a.stop()
}

// A removal is refused while anybody has tasks, and names a few of them.
func TestNetworkInUseCountsHidden(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	a.network("net", "10.96.0.0/16")
	b := start(t, config.Config{Node: "b", Join: []string{a.addr()}})
	b.task2("net", "web", "t1", "10.1.0.1")
	wantTasks(t, a, "net", "web", "t1@b")
	b.stop() // as a crash: its tasks are hidden soon, and still there
	eventually(t, func() error {
		if got := a.tasks("net", "web"); len(got) > 0 {
			return fmt.Errorf("still shown: %v", got)
		}
		return nil
	})
	err := a.RemoveNetwork(t.Context(), "net")
	if err == nil || !strings.Contains(err.Error(), `"t1" of service "web" on node "b"`) {
		t.Errorf("got %v", err)
	}
}
