package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const old = "nameserver 192.0.2.1\nsearch example.org\n# and a line that makes it longer than what is written " +
	"instead of it, by far, so that it is cut\n"

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

func keeper() *Keeper { return NewKeeper("/proc/self/exe", KeeperCommand) }

func plan(t *testing.T, path string) *ResolvConf {
	t.Helper()
	r, err := keeper().Plan(t.Context(), "", 0, path, "web")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func apply(t *testing.T, r *ResolvConf) *ResolvConf {
	t.Helper()
	r, err := keeper().Apply(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func restore(t *testing.T, r *ResolvConf) {
	t.Helper()
	if err := keeper().Restore(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// The file keeps its inode, its mode and its owner, and gets its text back.
func TestResolvConfRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	put(t, path, old)
	before, _ := os.Stat(path)
	r := plan(t, path)
	if content(t, path) != old {
		t.Fatal("to plan has changed the file")
	}
	for range 2 { // again is no error
		r = apply(t, r)
	}
	if got := content(t, path); got != string(r.Written) || !strings.Contains(got, "nameserver 127.0.0.11\n") {
		t.Errorf("the file is %q", got)
	}
	if applied, err := keeper().Applied(t.Context(), r); !applied || err != nil {
		t.Errorf("Applied: %v, %v", applied, err)
	}
	for range 2 {
		restore(t, r)
	}
	after, _ := os.Stat(path)
	if content(t, path) != old || !os.SameFile(before, after) || before.Mode() != after.Mode() {
		t.Errorf("the file is %q, %v, before %v", content(t, path), after, before)
	}
	if applied, err := keeper().Applied(t.Context(), r); applied || err != nil {
		t.Errorf("Applied afterwards: %v, %v", applied, err)
	}
}

func TestResolvConfCreated(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "resolv.conf")
	r := apply(t, plan(t, path))
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("created: %v, %v", info, err)
	}
	if r.File.Ino == 0 {
		t.Errorf("which file it is was not noted: %+v", r)
	}
	restore(t, r)
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A file that another program wrote is not changed. The error then holds the
// former text, which only meshd knows.
func TestResolvConfChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	put(t, path, old)
	r := plan(t, path)
	put(t, path, "# mine\n")
	if _, err := keeper().Apply(t.Context(), r); !errors.Is(err, ErrChanged) || content(t, path) != "# mine\n" {
		t.Errorf("Apply: %v, the file is %q", err, content(t, path))
	}
	put(t, path, old)
	r = apply(t, r)
	put(t, path, "# mine\n")
	if err := keeper().Restore(t.Context(), r); !errors.Is(err, ErrChanged) || content(t, path) != "# mine\n" ||
		!strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("Restore: %v, the file is %q", err, content(t, path))
	}
	put(t, filepath.Join(filepath.Dir(path), "new"), string(r.Written)) // the same text in another file
	if err := os.Rename(filepath.Join(filepath.Dir(path), "new"), path); err != nil {
		t.Fatal(err)
	}
	if err := keeper().Restore(t.Context(), r); !errors.Is(err, ErrChanged) || content(t, path) != string(r.Written) {
		t.Errorf("Restore of another file: %v, %q", err, content(t, path))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if restore(t, r); content(t, path) != "" {
		t.Errorf("Restore of what was removed: %q", content(t, path))
	}
}

// Who lost its records finds them in the file.
func TestResolvConfRecordLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	for _, was := range []string{old, "", "nameserver 192.0.2.1"} {
		put(t, path, was)
		apply(t, plan(t, path))
		r, err := keeper().Plan(t.Context(), "", 0, path, "other") // by another life
		if err != nil || string(r.Previous) != was {
			t.Fatalf("%q: %+v, %v", was, r, err)
		}
		r = apply(t, r)
		if got := content(t, path); !strings.Contains(got, "sandbox other") || strings.Count(got, headWas) != 1 {
			t.Errorf("%q: the file is %q", was, got)
		}
		if restore(t, r); content(t, path) != was {
			t.Errorf("%q came back as %q", was, content(t, path))
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	apply(t, plan(t, path))
	restore(t, apply(t, plan(t, path)))
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was not there before is there: %v", err)
	}
}

// Links of a container lead nowhere outside of it.
func TestResolvConfStaysInside(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	put(t, filepath.Join(outside, "secret"), "# secret")
	put(t, filepath.Join(root, "run/stub"), old)
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	inside := func(name string) *file {
		return &file{ResolvConf: ResolvConf{Root: "/proc/1/root", Path: "/" + name}, root: int(dir.Fd()), owner: os.Geteuid()}
	}
	for name, target := range map[string]string{
		"etc/absolute": "/run/stub", "etc/up": "../../../../../../run/stub", "etc/relative": "../run/stub",
	} {
		link(t, root, name, target)
		f := inside(name)
		if err := errors.Join(f.plan("web"), f.apply()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := content(t, filepath.Join(root, "run/stub")); got != string(f.Written) {
			t.Errorf("%s: the file inside is %q", name, got)
		}
		if err := f.restore(); err != nil || content(t, filepath.Join(root, "run/stub")) != old {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, target := range map[string]string{
		"etc/escape": filepath.Join(outside, "secret"), "etc/escape2": strings.Repeat("../", 20) + outside + "/secret",
		"etc/magic": "/proc/self/root" + outside + "/secret",
	} {
		link(t, root, name, target)
		f := inside(name)
		if err := f.plan("web"); err == nil && !f.Created || err == nil && f.apply() == nil {
			t.Errorf("%s leads out: %+v", name, f)
		}
	}
	if content(t, filepath.Join(outside, "secret")) != "# secret" {
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

// On the host, no link is followed, and only plain, small files of ours that are
// a resolv.conf by name and content, and not the host's own, will do.
func TestResolvConfRefusals(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name, "resolv.conf") }
	put(t, at("plain"), old)
	put(t, at("large"), strings.Repeat("#\n", maxResolvConf))
	put(t, at("passwd"), "root:x:0:0:root:/root:/bin/sh\n")
	put(t, filepath.Join(dir, "passwd/passwd"), old)
	put(t, at("hard"), old)
	put(t, at("pipe")+".d", "")
	link(t, dir, "link/resolv.conf", "plain")
	link(t, dir, "linked", filepath.Join(dir, "plain"))
	if err := errors.Join(syscall.Mkfifo(at("pipe"), 0o600), os.MkdirAll(at("dir"), 0o700),
		os.Link(at("hard"), at("hard")+"2")); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		at("link"):                          "symbolic link",
		at("linked"):                        "symbolic link",
		"/proc/self/root" + at("plain"):     "symbolic link",
		at("large"):                         "64 KiB",
		at("passwd"):                        "line 1",
		filepath.Join(dir, "passwd/passwd"): "must be called resolv.conf",
		"/etc/passwd":                       "must be called resolv.conf",
		at("hard"):                          "hard link",
		at("pipe"):                          "plain file",
		at("dir"):                           "is a directory",
		at("no"):                            "directory must exist",
		"/etc/resolv.conf":                  "",
	} {
		r, err := keeper().Plan(t.Context(), "", 0, path, "web")
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, %v; want %q", path, r, err, says)
		}
	}
}

// A child that never ends, or never stops writing, delays its caller only briefly.
func TestKeeperBounds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for script, says := range map[string]string{
		"exec sleep 60":         "does not answer",
		"yes":                   "",
		"echo '{'":              "unreadable",
		"exit 3":                "exit status 3",
		`echo '{"error":"no"}'`: "no",
	} {
		use := t.Context()
		if strings.Contains(script, "sleep") {
			use = ctx
		}
		_, err := NewKeeper("/bin/sh", "-c", "PATH=/bin:/usr/bin; "+script).Plan(use, "", 0, "/resolv.conf", "web")
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want %q", script, err, says)
		}
	}
}
