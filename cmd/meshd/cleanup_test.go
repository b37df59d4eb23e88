package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshd/lb"
	"meshd/mesh"
)

func TestCleanupUsage(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("data-dri: /x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"--help":            {0, "removes IPVS services"},
		"extra":             {2, `unexpected argument "extra"`},
		"--netns web":       {2, "absolute path"},
		"--bogus":           {2, "bogus"},
		"--data-dir=":       {2, "--data-dir"},
		"--socket=":         {2, "--socket"},
		"--data-dir ~/x":    {2, "--data-dir: \"~/x\": nothing replaces ~"},
		"--socket unix:///": {2, "without unix://"},
		"--dry-run true":    {2, "--dry-run stands alone, or write --dry-run=true"},
		"--dry-run=maybe":   {2, "--dry-run: \"maybe\": write true or false"},
		"--config":          {2, "needs a FILE"},
		"--config " + bad:   {2, "data-dri"},
		"--config /nowhere": {2, "/nowhere"},
	} {
		var stdout, stderr bytes.Buffer
		code := cleanup(strings.Fields(line), &stdout, &stderr)
		said, silent := &stderr, &stdout
		if code == 0 {
			said, silent = &stdout, &stderr
		}
		if code != want.code || !strings.Contains(said.String(), want.says) || silent.Len() > 0 {
			t.Errorf("meshd cleanup %s: exit %d\n%s%s\nwant exit %d and %q", line, code, &stdout, &stderr, want.code, want.says)
		}
	}
}

// The daemon's configuration says where its data and its socket are; flags win.
func TestCleanupConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meshd.yaml")
	if err := os.WriteFile(file, []byte("data-dir: /data\nsocket: /sock\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cfg, code := configureCleanup([]string{
		"--config", file, "--socket", "/other", "--netns", "/a", "--netns=/b",
		"--dry-run",
	}, &stderr, &stderr)
	if code >= 0 || cfg.DataDir != "/data" || cfg.Socket != "/other" || len(cfg.NetNS) != 2 || !cfg.DryRun || cfg.Force {
		t.Errorf("%+v, exit %d, %s", cfg, code, &stderr)
	}
	cfg, _ = configureCleanup(nil, &stderr, &stderr)
	if cfg.DataDir != "/var/lib/meshd" || cfg.Socket != "/run/meshd/meshd.sock" {
		t.Errorf("without flags: %+v", cfg)
	}
}

func TestCleanupOutput(t *testing.T) {
	route := lb.Remnant{Area: lb.AreaRoute, What: "local route of pool 10.96.0.0/16", Detail: "no source address"}
	table := lb.Remnant{Area: lb.AreaTable, What: "nftables table ip meshd"}
	for _, c := range []struct {
		place mesh.Cleaned
		dry   bool
		want  string
	}{
		{mesh.Cleaned{Where: "host"}, false, "host: nothing of meshd's\n"},
		{mesh.Cleaned{Where: "host", Err: errors.New("no")}, false, ""},
		{
			mesh.Cleaned{Where: "host", Found: []lb.Remnant{table, route}, Left: []lb.Remnant{table}},
			false,
			"host: could not remove nftables table ip meshd\nhost: removed local route of pool 10.96.0.0/16 (no source " +
				"address)\n",
		},
		{mesh.Cleaned{Where: "sandbox a", Found: []lb.Remnant{table}}, true, "sandbox a: would remove nftables table ip meshd\n"},
	} {
		var out bytes.Buffer
		describe(&out, c.place, c.dry)
		if out.String() != c.want {
			t.Errorf("%+v:\n%swant\n%s", c.place, &out, c.want)
		}
	}
}
