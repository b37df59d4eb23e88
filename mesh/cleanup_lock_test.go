package mesh

import (
	"path/filepath"
	"testing"
)

// Between the check that no daemon runs and the end of the cleanup, no daemon
// gets the data directory.
func TestCleanupKeepsDaemonsOut(t *testing.T) {
	dir := t.TempDir()
	cfg := CleanupConfig{DataDir: dir, Socket: filepath.Join(dir, "s")}
	release, err := nobodyRuns(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobodyRuns(t.Context(), cfg); err == nil {
		t.Error("a second cleanup runs beside the first")
	}
	if d, err := openDataDir(dir); err == nil {
		_ = d.close()
		t.Error("a daemon got the data directory of a cleanup under way")
	}
	release()
	d, err := openDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobodyRuns(t.Context(), cfg); err == nil {
		t.Error("a cleanup runs beside a daemon")
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}
