package mesh

import (
	"path/filepath"
	"testing"

	"meshd/mesh/internal/store"
)

// Between the check that no daemon runs and the end of the cleanup, no daemon
// gets the data directory.
func TestCleanupKeepsDaemonsOut(t *testing.T) {
	dir := t.TempDir()
	cfg := CleanupConfig{DataDir: dir, Socket: filepath.Join(dir, "s")}
	release, err := checkNotRunning(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkNotRunning(t.Context(), cfg); err == nil {
		t.Error("a second cleanup runs beside the first")
	}
	if d, err := store.Open(dir); err == nil {
		_ = d.Close()
		t.Error("a daemon got the data directory of a cleanup under way")
	}
	release()
	d, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkNotRunning(t.Context(), cfg); err == nil {
		t.Error("a cleanup runs beside a daemon")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
