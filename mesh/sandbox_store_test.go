package mesh

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"meshd/mesh/sandbox"
	"meshd/mesh/store"
)

func savedBoxes() []savedSandbox {
	return []savedSandbox{
		{
			ID: "a1", Name: "web.1", Networks: []string{"front", "back"}, Netns: "/run/netns/web", Port: 40001, Service: "web",
			Task:      "t1",
			Identity:  sandbox.Identity{Boot: "b", Dev: 4, Ino: 4026532000, Cookie: 7},
			Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("fd00::7")},
			Since:     time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC),
			ResolvConf: &sandbox.ResolvConf{
				Path: "/etc/netns/web/resolv.conf", Previous: []byte("nameserver 192.0.2.1\n"),
				Written: []byte("x\n"),
			},
		},
		{ID: "b2", Name: "b2", Networks: []string{"front"}, PID: 4711, Identity: sandbox.Identity{Start: 99}, Ending: true, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.8")}},
	}
}

func TestSandboxesAreKept(t *testing.T) {
	d := store.Unlocked(t.TempDir())
	if got, err := readSandboxes(d); err != nil || len(got) != 0 {
		t.Fatalf("without a file: %v, %v", got, err)
	}
	if err := d.Save("sandboxes.json", sandboxFile{Sandboxes: savedBoxes()}); err != nil {
		t.Fatal(err)
	}
	got, err := readSandboxes(d)
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(savedBoxes(), got, same); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// What meshd cannot have written is refused and left as it is.
func TestCorruptedSandboxes(t *testing.T) {
	for name, change := range map[string]func(s []savedSandbox){
		"no network":      func(s []savedSandbox) { s[0].Networks = nil },
		"no target":       func(s []savedSandbox) { s[0].Netns = "" },
		"two targets":     func(s []savedSandbox) { s[0].PID = 7 },
		"relative path":   func(s []savedSandbox) { s[0].Netns = "web" },
		"unclean path":    func(s []savedSandbox) { s[0].Netns = "/run/../web" },
		"no id":           func(s []savedSandbox) { s[0].ID = "" },
		"no name":         func(s []savedSandbox) { s[0].Name = "" },
		"same name":       func(s []savedSandbox) { s[1].Name = "web.1" },
		"name is an id":   func(s []savedSandbox) { s[1].Name = "a1" },
		"half a task":     func(s []savedSandbox) { s[0].Service = "" },
		"bad task":        func(s []savedSandbox) { s[0].Task = "a/b" },
		"no addresses":    func(s []savedSandbox) { s[0].Addresses = nil },
		"no address":      func(s []savedSandbox) { s[0].Addresses[0] = netip.Addr{} },
		"resolv.conf":     func(s []savedSandbox) { s[0].ResolvConf.Path = "etc/passwd" },
		"its root":        func(s []savedSandbox) { s[0].ResolvConf.Root = "proc/1/root" },
		"reserved prefix": func(s []savedSandbox) { s[0].Name = "tasks.web" },
	} {
		d := store.Unlocked(t.TempDir())
		boxes := savedBoxes()
		change(boxes)
		if err := d.Save("sandboxes.json", sandboxFile{Sandboxes: boxes}); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(d.File("sandboxes.json"))
		_, err := readSandboxes(d)
		after, _ := os.ReadFile(d.File("sandboxes.json"))
		if err == nil || !strings.Contains(err.Error(), "sandboxes.json is corrupted") || string(before) != string(after) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No content of the file is taken in that is not as meshd writes it.
func FuzzSandboxFile(f *testing.F) {
	seed, err := json.Marshal(sandboxFile{Sandboxes: savedBoxes()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"sandboxes":[{"id":"a","name":"a","networks":["n"],"pid":1,"addresses":["10.0.0.1"],"resolv_conf":{"path":"/x"}}]}`))
	f.Add([]byte(`{"sandboxes":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, again sandboxFile
		if json.Unmarshal(text, &got) != nil {
			return
		}
		if _, err := got.check(); err != nil {
			return
		}
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		err = json.Unmarshal(b, &again)
		if err == nil {
			_, err = again.check()
		}
		same := cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()}
		if diff := cmp.Diff(got, again, same); err != nil || diff != "" {
			t.Errorf("written and read again: %v\n%s", err, diff)
		}
	})
}
