package box

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"meshd/mesh/sandbox"
)

func savedSandboxes() []Saved {
	return []Saved{
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

// memory is a Store of one file.
type memory struct{ text []byte }

func (m *memory) Load(v any) error {
	if m.text == nil {
		return nil
	}
	return json.Unmarshal(m.text, v)
}

func (m *memory) Save(v any) (err error) {
	m.text, err = json.Marshal(v)
	return err
}

func TestSandboxesAreKept(t *testing.T) {
	m := &memory{}
	if got, err := Read(m); err != nil || len(got) != 0 {
		t.Fatalf("without a file: %v, %v", got, err)
	}
	if err := m.Save(file{Sandboxes: savedSandboxes()}); err != nil {
		t.Fatal(err)
	}
	got, err := Read(m)
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(savedSandboxes(), got, same); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// What meshd cannot have written is refused and left as it is.
func TestCorruptedSandboxes(t *testing.T) {
	for name, change := range map[string]func(s []Saved){
		"no network":      func(s []Saved) { s[0].Networks = nil },
		"no target":       func(s []Saved) { s[0].Netns = "" },
		"two targets":     func(s []Saved) { s[0].PID = 7 },
		"relative path":   func(s []Saved) { s[0].Netns = "web" },
		"unclean path":    func(s []Saved) { s[0].Netns = "/run/../web" },
		"no id":           func(s []Saved) { s[0].ID = "" },
		"no name":         func(s []Saved) { s[0].Name = "" },
		"same name":       func(s []Saved) { s[1].Name = "web.1" },
		"name is an id":   func(s []Saved) { s[1].Name = "a1" },
		"half a task":     func(s []Saved) { s[0].Service = "" },
		"bad task":        func(s []Saved) { s[0].Task = "a/b" },
		"no addresses":    func(s []Saved) { s[0].Addresses = nil },
		"no address":      func(s []Saved) { s[0].Addresses[0] = netip.Addr{} },
		"resolv.conf":     func(s []Saved) { s[0].ResolvConf.Path = "etc/passwd" },
		"its root":        func(s []Saved) { s[0].ResolvConf.Root = "proc/1/root" },
		"reserved prefix": func(s []Saved) { s[0].Name = "tasks.web" },
	} {
		m := &memory{}
		list := savedSandboxes()
		change(list)
		if err := m.Save(file{Sandboxes: list}); err != nil {
			t.Fatal(err)
		}
		_, err := Read(m)
		if _, ok := errors.AsType[*CorruptError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No content of the file is taken in that is not as meshd writes it.
func FuzzSandboxFile(f *testing.F) {
	seed, err := json.Marshal(file{Sandboxes: savedSandboxes()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"sandboxes":[{"id":"a","name":"a","networks":["n"],"pid":1,"addresses":["10.0.0.1"],"resolv_conf":{"path":"/x"}}]}`))
	f.Add([]byte(`{"sandboxes":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, again file
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
