package hostread

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A scheduler is there if its module can be loaded, or has been, from wherever: what
// somebody loaded by hand is in no list of modules.
func TestSchedulers(t *testing.T) {
	root := t.TempDir()
	names := []string{"rr", "sed", "mh", "nq"}
	if got := schedulers(root, names); got != nil {
		t.Errorf("where nothing is known of modules: %v", got)
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(root, "lib/modules", strings.TrimSpace(string(release)))
	for _, dir := range []string{modules, filepath.Join(root, "sys/module/ip_vs_sed")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"modules.dep":     "kernel/net/netfilter/ipvs/ip_vs_rr.ko.xz: kernel/net/netfilter/ipvs/ip_vs.ko.xz\n",
		"modules.builtin": "kernel/net/netfilter/ipvs/ip_vs_mh.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(modules, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := schedulers(root, names); !maps.Equal(got, map[string]bool{
		"rr": true, "sed": true, "mh": true,
		"nq": false,
	}) {
		t.Errorf("there are %v", got)
	}
}
