package mesh_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"meshd/mesh"
)

// While a daemon runs, what is removed would come back: cleanup refuses, and
// says which daemon.
func TestCleanupRefusesBesideADaemon(t *testing.T) {
	n := start(t, mesh.Config{Node: "busy"})
	quiet := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		cfg  mesh.CleanupConfig
		says string
	}{
		{mesh.CleanupConfig{DataDir: n.cfg.DataDir, Socket: "/nowhere"}, "uses the data directory " + n.cfg.DataDir},
		{mesh.CleanupConfig{DataDir: t.TempDir(), Socket: n.cfg.Socket}, "node busy, answers on " + n.cfg.Socket},
	} {
		c.cfg.Log = quiet
		if _, err := mesh.Cleanup(t.Context(), c.cfg); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "--force") {
			t.Errorf("%+v: %v; want %q and --force", c.cfg, err, c.says)
		}
	}
}

// A namespace that is not there is that place's failure, not everybody's.
func TestCleanupOfAMissingNamespace(t *testing.T) {
	dir := t.TempDir()
	got, err := mesh.Cleanup(t.Context(), mesh.CleanupConfig{
		DataDir: filepath.Join(dir, "none"), Socket: filepath.Join(dir, "s"), NetNS: []string{filepath.Join(dir, "gone")}, DryRun: true,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[1].Err == nil || !strings.Contains(got[1].Err.Error(), "gone") {
		t.Errorf("%+v", got[1])
	}
}
