package mesh_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshd/mesh"
	"meshd/mesh/config"
)

// While a daemon runs, what is removed would come back: cleanup refuses, and
// says which daemon.
func TestCleanupRefusesBesideADaemon(t *testing.T) {
	n := start(t, config.Config{Node: "busy"})
	quiet := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		cfg  mesh.CleanupConfig
		says string
	}{
		{mesh.CleanupConfig{DataDir: n.cfg.DataDir, Socket: "/nowhere"}, "uses the data directory " + n.cfg.DataDir},
		{mesh.CleanupConfig{DataDir: t.TempDir(), Socket: n.cfg.Socket}, "node busy, answers on " + n.cfg.Socket},
	} {
		c.cfg.Log = quiet
		if _, err := mesh.Cleanup(t.Context(), c.cfg); err == nil || !strings.Contains(err.Error(), c.says) ||
			!strings.Contains(err.Error(), "--force") {
			t.Errorf("%+v: %v; want %q and --force", c.cfg, err, c.says)
		}
	}
}

// A namespace that is not there is that place's failure, not everybody's.
func TestCleanupOfAMissingNamespace(t *testing.T) {
	dir := t.TempDir()
	got, err := mesh.Cleanup(t.Context(), mesh.CleanupConfig{
		DataDir: filepath.Join(dir, "none"), Socket: filepath.Join(dir, "s"), NetNS: []string{filepath.Join(dir, "gone")},
		DryRun: true,
		Log:    slog.New(slog.DiscardHandler),
	})
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[1].Err == nil || !strings.Contains(got[1].Err.Error(), "gone") {
		t.Errorf("%+v", got[1])
	}
}

// A data directory that others can write says which namespaces to enter and
// which sysctls to set: it is not believed. One that is not there is told of.
func TestCleanupLooksAtTheDataDirectory(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{false, true} {
		got, err := mesh.Cleanup(t.Context(), mesh.CleanupConfig{
			DataDir: open, Socket: "/nowhere", DryRun: dry,
			Log: slog.New(slog.DiscardHandler),
		})
		if err == nil || !strings.Contains(err.Error(), "data-dir") || len(got) > 0 {
			t.Errorf("dry %v: %+v, %v", dry, got, err)
		}
	}
	if left, err := os.ReadDir(open); err != nil || len(left) > 0 {
		t.Errorf("it left %v there, %v", left, err)
	}
	var log bytes.Buffer
	_, err := mesh.Cleanup(t.Context(), mesh.CleanupConfig{
		DataDir: open + "-none", Socket: "/nowhere", DryRun: true,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil || !strings.Contains(log.String(), "open-none") {
		t.Errorf("%v, said is %q", err, log.String())
	}
}
