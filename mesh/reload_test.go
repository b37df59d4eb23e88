package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meshd/mesh"
	"meshd/mesh/config"
	"meshd/mesh/control"
)

// writeKeys makes a key file.
func writeKeys(t *testing.T, path string, keys ...string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(keys, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const keyOne, keyTwo, keyThree = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
	"ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=", "MDAwMDAwMDAwMDAwMDAwMGZlZGNiYTk4NzY1NDMyMTA="

// reload gives a running node another configuration.
func (n *node) reload(change func(c *config.Config)) (mesh.Reloaded, error) {
	n.t.Helper()
	change(&n.cfg)
	return n.Reload(n.t.Context(), n.cfg)
}

// TestReloadKeys: a file with one more key is as good as an installation, and
// decides nothing for the mesh; who is alone with the wrong key is let in.
func TestReloadKeys(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, keys ...string) string { return writeKeys(t, filepath.Join(dir, name), keys...) }
	a := start(t, config.Config{Node: "a", KeyFile: file("a", keyOne)})
	b := start(t, config.Config{Node: "b", KeyFile: file("b", keyOne), Join: []string{a.addr()}})
	members := func(n *node, want int) func() error {
		return func() error {
			s, err := n.Status(t.Context())
			if err == nil && s.Members.Alive != want {
				err = fmt.Errorf("%d members, want %d", s.Members.Alive, want)
			}
			return err
		}
	}
	eventually(t, members(a, 2))
	file("b", keyTwo, keyOne)
	r, err := b.reload(func(*config.Config) {})
	if err != nil || !slices.Equal(r.Changed, []string{"key-file"}) || len(r.Notes) != 1 ||
		!strings.Contains(r.Notes[0], "in use is key "+control.KeyID([]byte("0123456789abcdef0123456789abcdef"))) {
		t.Errorf("a key more: %+v, %v", r, err)
	}
	file("a", keyOne, keyTwo)
	if r, err = a.reload(func(*config.Config) {}); err != nil || len(r.Notes) != 0 {
		t.Errorf("the same keys in the order of the mesh: %+v, %v", r, err)
	}
	if k, err := a.UseKey(t.Context(), control.KeyRequest{Key: keyTwo}); err != nil || k.OK != 2 {
		t.Fatalf("after the file was distributed: %+v, %v", k, err)
	}
	if k, err := a.RemoveKey(t.Context(), control.KeyRequest{Key: keyOne}); err != nil || k.OK != 2 {
		t.Fatalf("%+v, %v", k, err)
	}
	if k, err := a.RemoveKey(t.Context(), control.KeyRequest{Key: "111111111111"}); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("a key that nobody has was removed: %+v, %v", k, err)
	}
	if r, err = b.reload(func(c *config.Config) { c.LogLevel = "debug" }); err != nil ||
		!slices.Equal(r.Changed, []string{"log-level"}) {
		t.Errorf("a reload with the file of before: %+v, %v", r, err)
	}
	if k, err := a.Keys(t.Context()); err != nil || len(k.Keys) != 1 {
		t.Errorf("a reload brought back what the mesh has removed: %+v, %v", k, err)
	}
	c := start(t, config.Config{Node: "c", KeyFile: file("c", keyThree), Join: []string{a.addr()}})
	if r, err := c.reload(func(*config.Config) {}); err != nil || len(r.Changed) > 0 {
		t.Errorf("the same file: %+v, %v", r, err)
	}
	file("c", keyTwo)
	eventually(t, func() error { // once it knows that it is alone
		_, err := c.reload(func(*config.Config) {})
		return errors.Join(err, members(c, 3)())
	})
	bind := c.addr()
	c.stop()
	c = start(t, config.Config{Node: "c", KeyFile: c.cfg.KeyFile, DataDir: c.cfg.DataDir, Bind: bind})
	eventually(t, members(c, 3))
}

// TestReloadLimits: what is registered stays allowed, what else can be changed is,
// and all else waits and is named.
func TestReloadLimits(t *testing.T) {
	n := start(t, config.Config{Node: "a"})
	n.network("net", "10.96.0.0/24")
	n.task("net", "web", "one", "10.1.0.1")
	n.task("net", "web", "two", "10.1.0.2")
	if _, err := n.reload(func(c *config.Config) { c.MaxTasks = 1 }); !errors.Is(err, config.ErrInvalid) ||
		!strings.Contains(err.Error(), "max-tasks") {
		t.Errorf("fewer tasks than there are: %v", err)
	}
	r, err := n.reload(func(c *config.Config) { c.MaxTasks, c.LogLevel, c.Domain = 2, "debug", "other.internal" })
	if err != nil || fmt.Sprint(r.Changed, r.Waiting) != "[log-level max-tasks] [domain]" {
		t.Errorf("%+v, %v", r, err)
	}
	three := control.AddTask{Network: "net", Service: "web", ID: "three", IPs: []string{"10.1.0.3"}}
	if _, err := n.AddTask(t.Context(), three); err == nil || !strings.Contains(err.Error(), "at most 2") {
		t.Errorf("over the new limit: %v", err)
	}
	if _, err := n.reload(func(c *config.Config) { c.MaxTasks = 3 }); err != nil {
		t.Fatal(err)
	}
	if _, err := n.AddTask(t.Context(), three); err != nil {
		t.Errorf("within the next one: %v", err)
	}
	_, err = n.reload(func(c *config.Config) { c.Upstream = []string{"nowhere"} })
	if !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), "upstream") {
		t.Errorf("a wrong upstream: %v", err)
	}
}

// TestReloadJoin: a node that was given the wrong addresses joins by the right ones.
func TestReloadJoin(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	b := start(t, config.Config{Node: "b", Join: []string{"127.0.0.1:1"}})
	r, err := b.reload(func(c *config.Config) { c.Join = []string{a.addr()} })
	if err != nil || !slices.Equal(r.Changed, []string{"join"}) {
		t.Errorf("%+v, %v", r, err)
	}
	eventually(t, func() error {
		s, err := a.Status(t.Context())
		if err == nil && s.Members.Alive != 2 {
			err = errors.New("b has not joined")
		}
		return err
	})
}

// TestReloadAllOrNothing: what could not be taken over is not in effect in part, and
// the next try takes it over whole.
func TestReloadAllOrNothing(t *testing.T) {
	n := start(t, config.Config{Node: "a"})
	late, cancel := context.WithCancel(t.Context())
	cancel()
	n.cfg.MaxTasks = 5
	if _, err := n.Reload(late, n.cfg); err == nil {
		t.Fatal("nobody waited for the core")
	}
	r, err := n.reload(func(*config.Config) {})
	if err != nil || fmt.Sprint(r.Changed) != "[max-tasks]" {
		t.Errorf("the next try: %+v, %v", r, err)
	}
}
