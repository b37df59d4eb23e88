package mesh_test

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshd/mesh/config"
	"meshd/state"
)

// writeTasks writes a data directory's tasks.json as versions before the store did.
func writeTasks(t *testing.T, dir, id, ip string) {
	t.Helper()
	e := state.Endpoint{ID: id, Service: "web", IP4: netip.MustParseAddr(ip), Weight: 1}
	text := fmt.Sprintf(`{"networks":{"net":{"def":{"subnet":"10.96.0.0/16","birth":3},"tasks":{%q:{"service":"web","body":%q}}}}}`,
		id, base64.StdEncoding.EncodeToString(state.AppendEndpoint(nil, &e)))
	if err := os.WriteFile(filepath.Join(dir, "tasks.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a version before the store registered is taken over once, and its file kept. If
// that version runs again in between, what it registered counts.
func TestFormerFilesAreTakenOver(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Config{Node: "a", DataDir: dir}
	writeTasks(t, dir, "t1", "10.1.0.1")
	a := start(t, cfg)
	wantTasks(t, a, "net", "web", "t1@a")
	a.task("net", "web", "t2", "10.1.0.2")
	a.stop()
	if got := files(t, dir); !strings.Contains(got, "meshd.db") || !strings.Contains(got, "tasks.json.migrated") ||
		strings.Contains(got+" ", "tasks.json ") {
		t.Errorf("there is %s", got)
	}
	a = start(t, cfg)
	wantTasks(t, a, "net", "web", "t1@a t2@a")
	a.stop()
	writeTasks(t, dir, "t3", "10.1.0.3")
	a = start(t, cfg)
	wantTasks(t, a, "net", "web", "t3@a")
	a.stop()
	if got := files(t, dir); !strings.Contains(got, "meshd.db.older") || !strings.Contains(got, "tasks.json.migrated.2") {
		t.Errorf("there is %s", got)
	}
}
