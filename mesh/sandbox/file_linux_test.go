package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const old = "nameserver 192.0.2.1\nsearch example.org\n# and a line that makes it longer than what is written instead of it, by far, so that it is cut\n"

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func plan(t *testing.T, root, path string) *ResolvConf {
	t.Helper()
	r, err := NewResolvConf(root, path, "web")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The file keeps its inode, its mode and its owner, and gets its text back.
func TestResolvConfRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	put(t, path, old)
	before, _ := os.Stat(path)
	r := plan(t, "", path)
	if content(t, path) != old {
		t.Fatal("to plan has changed the file")
	}
	for range 2 { // again is no error
		if err := r.Apply(); err != nil {
			t.Fatal(err)
		}
	}
	if got := content(t, path); got != string(r.Written) || !strings.Contains(got, "nameserver 127.0.0.11\n") {
		t.Errorf("the file is %q", got)
	}
	for range 2 {
		if err := r.Restore(); err != nil {
			t.Fatal(err)
		}
	}
	after, _ := os.Stat(path)
	if content(t, path) != old || !os.SameFile(before, after) || before.Mode() != after.Mode() {
		t.Errorf("the file is %q, %v, before %v", content(t, path), after, before)
	}
}

func TestResolvConfCreated(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "resolv.conf")
	r := plan(t, "", path)
	if err := r.Apply(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("created: %v, %v", info, err)
	}
	if err := r.Restore(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What somebody else wrote is nobody's to change.
func TestResolvConfChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	put(t, path, old)
	r := plan(t, "", path)
	put(t, path, "mine\n")
	if err := r.Apply(); !errors.Is(err, ErrChanged) || content(t, path) != "mine\n" {
		t.Errorf("Apply: %v, the file is %q", err, content(t, path))
	}
	put(t, path, old)
	if err := r.Apply(); err != nil {
		t.Fatal(err)
	}
	put(t, path, "mine\n")
	if err := r.Restore(); !errors.Is(err, ErrChanged) || content(t, path) != "mine\n" {
		t.Errorf("Restore: %v, the file is %q", err, content(t, path))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := r.Restore(); err != nil || content(t, path) != "" {
		t.Errorf("Restore of what was removed: %v, %q", err, content(t, path))
	}
}

// Links of a container lead nowhere outside of it.
func TestResolvConfStaysInside(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	put(t, filepath.Join(outside, "secret"), "secret")
	put(t, filepath.Join(root, "run/stub"), old)
	for name, target := range map[string]string{
		"etc/absolute": "/run/stub", "etc/up": "../../../../../../run/stub", "etc/relative": "../run/stub",
	} {
		link(t, root, name, target)
		r := plan(t, root, "/"+name)
		if err := r.Apply(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := content(t, filepath.Join(root, "run/stub")); got != string(r.Written) {
			t.Errorf("%s: the file inside is %q", name, got)
		}
		if err := r.Restore(); err != nil || content(t, filepath.Join(root, "run/stub")) != old {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, target := range map[string]string{
		"etc/escape": filepath.Join(outside, "secret"), "etc/escape2": strings.Repeat("../", 20) + outside + "/secret", "etc/magic": "/proc/self/root" + outside + "/secret",
	} {
		link(t, root, name, target)
		if r, err := NewResolvConf(root, "/"+name, "web"); err == nil && !r.Created || err == nil && r.Apply() == nil {
			t.Errorf("%s leads out: %+v", name, r)
		}
	}
	if content(t, filepath.Join(outside, "secret")) != "secret" {
		t.Error("a file outside was changed")
	}
}

func link(t *testing.T, root, name, target string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
		t.Fatal(err)
	}
}

// On the host, no link is followed, and only plain, small files that are not
// the host's own will do.
func TestResolvConfRefusals(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "plain"), old)
	put(t, filepath.Join(dir, "large"), strings.Repeat("#\n", maxResolvConf))
	link(t, dir, "link", "plain")
	link(t, dir, "linked", dir)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		filepath.Join(dir, "link"):                      "symbolic link",
		filepath.Join(dir, "linked/plain"):              "symbolic link",
		"/proc/self/root" + filepath.Join(dir, "plain"): "symbolic link",
		filepath.Join(dir, "large"):                     "64 KiB",
		filepath.Join(dir, "pipe"):                      "plain file",
		dir:                                             "is a directory",
		filepath.Join(dir, "no/file"):                   "directory must exist",
		"/etc/resolv.conf":                              "",
	} {
		r, err := NewResolvConf("", path, "web")
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, %v; want %q", path, r, err, says)
		}
	}
}
