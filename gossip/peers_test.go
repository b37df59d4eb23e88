package gossip

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPeersFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	if ps, err := LoadPeers(path); err != nil || ps != nil {
		t.Fatalf("a missing file: %v, %v", ps, err)
	}
	seen := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := []Peer{{Name: "b", Addr: addr(2), Seen: seen}, {Name: "a", Addr: addr(1), Seen: seen}}
	if err := SavePeers(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := LoadPeers(path)
	slices.Reverse(want) // by name
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestPeersFileCorrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	if err := os.WriteFile(path, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPeers(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("the error names neither the file nor what to do: %v", err)
	}
}

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
