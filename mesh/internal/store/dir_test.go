//go:build unix

package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A directory in which other users can put files is not used.
func TestDataDirOfOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for mode, says := range map[os.FileMode]string{
		0o777: "writable for all", 0o777 | os.ModeSticky: "writable for all",
		0o755: "", 0o700: "",
	} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		d, err := Open(dir)
		if (err != nil) != (says != "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v", mode, err)
		}
		if err == nil {
			_ = d.Close()
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Error(err)
	}
}

// A pipe in place of a file is not waited for.
func TestPipesAreNotRead(t *testing.T) {
	for _, name := range []string{"node.json", "peers.json"} {
		d := Unlocked(t.TempDir(), testFiles()...)
		if err := syscall.Mkfifo(d.File(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.CheckPlain(name); err == nil || !strings.Contains(err.Error(), "not a plain file") {
			t.Errorf("%s: %v", name, err)
		}
		if err := d.Load(name, &struct{}{}); err == nil || !strings.Contains(err.Error(), "not a plain file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nor is a file that meshd cannot have written, for its size: a hole of a terabyte
// takes no room on a disk.
func TestFilesThatAreTooLargeAreNotRead(t *testing.T) {
	for _, name := range []string{"tasks.json", "peers.json"} {
		d := Unlocked(t.TempDir(), testFiles()...)
		if err := errors.Join(os.WriteFile(d.File(name), nil, 0o600),
			os.Truncate(d.File(name), d.maxSize(name)+1)); err != nil {
			t.Fatal(err)
		}
		if err := d.CheckPlain(name); err == nil || !strings.Contains(err.Error(), "has more than") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A write that fails leaves the former file, and no temporary one.
func TestWriteFileKeepsTheOldOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "none", "x"), []byte("new"), 0o600); err == nil {
		t.Error("no error for a missing directory")
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "d"), []byte("new"), 0o600); err == nil {
		t.Error("no error for a directory in the way")
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 2 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

// testFiles are those of a directory in tests: one that matters, and a small cache.
func testFiles() []File {
	return []File{{Name: "tasks.json"}, {Name: "node.json"}, {Name: "peers.json", MaxSize: 1 << 20, Cache: true}}
}
