package mesh_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshd/mesh"
	"meshd/mesh/config"
)

const aKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// written makes a file of a test, mode 0600.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A configuration that is refused has touched nothing (N1).
func TestRefusedStartTouchesNothing(t *testing.T) {
	for _, cfg := range []config.Config{
		{Node: "a", Bind: "224.0.0.1", Insecure: true},
		{Node: "a", Bind: "192.0.2.7"}, // without a key
		{Node: "a", KeyFile: "/nonexistent/key"},
		{Node: "a", LogLevel: "loud", Insecure: true},
	} {
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
		if _, err := mesh.New(cfg, "test", slog.New(slog.DiscardHandler)); !errors.Is(err, config.ErrInvalid) {
			t.Errorf("%+v: %v is no ErrInvalid", cfg, err)
		}
		if _, err := os.Stat(cfg.DataDir); err == nil {
			t.Errorf("%+v: a refused start has made its data directory", cfg)
		}
	}
}

// Gossip without a key, and a network that nobody has made, are said in status.
func TestConfigurationInStatus(t *testing.T) {
	a := start(t, config.Config{Node: "a", Bind: "127.0.0.1:0", Insecure: true, Networks: []string{"nope"}})
	s, err := a.Status(t.Context())
	for _, says := range []string{"gossip is open", "nobody has made a network nope"} {
		if err != nil || !strings.Contains(strings.Join(s.Warnings, "\n"), says) {
			t.Errorf("status does not say that %s: %q, %v", says, s.Warnings, err)
		}
	}
}

// The data directory holds files of well-known names: it must be meshd's own.
func TestMistypedDataDir(t *testing.T) {
	for _, dir := range []string{"/", "//", "/../", "~/x", "$STATE/x", "{{ dir }}", "file:///x"} {
		if d := mesh.Examine(config.Config{Node: "a", Bind: "127.0.0.1", DataDir: dir}); len(d.Findings) == 0 ||
			!strings.Contains(d.Findings[0].What, "data-dir: \""+dir+"\"") {
			t.Errorf("%q: %+v", dir, d.Findings)
		}
	}
}
