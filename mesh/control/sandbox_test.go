package control

import (
	"encoding/json"
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAttachSandboxParse(t *testing.T) {
	got, err := AttachSandbox{
		Networks: []string{"Front", "back"}, Netns: "Web", Name: "Web.1", ResolvConf: "auto",
		Task: &AddTask{Service: "web", Ports: []string{"80"}, ID: "t1"},
	}.Parse()
	if err != nil {
		t.Fatal(err)
	}
	task := AddTask{Service: "web", Ports: []string{"80"}, ID: "t1", Name: "web.1"}
	one, two := task, task
	one.Network, two.Network = "front", "back"
	want := ParsedSandbox{
		Networks: []string{"front", "back"}, Netns: "/run/netns/Web", Name: "web.1", ResolvConf: "auto",
		Tasks: []AddTask{one, two},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	got, err = AttachSandbox{Networks: []string{"a"}, PID: 12}.Parse()
	if d := cmp.Diff(ParsedSandbox{Networks: []string{"a"}, PID: 12}, got); d != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, d)
	}
}

// Each refusal names the field and what to do.
func TestAttachSandboxRefusals(t *testing.T) {
	good := func() AttachSandbox { return AttachSandbox{Networks: []string{"a"}, Netns: "/run/netns/web"} }
	for name, tt := range map[string]struct {
		field  string
		change func(*AttachSandbox)
	}{
		"no network":        {"networks", func(r *AttachSandbox) { r.Networks = nil }},
		"bad network":       {"networks", func(r *AttachSandbox) { r.Networks = []string{"a b"} }},
		"network twice":     {"networks", func(r *AttachSandbox) { r.Networks = []string{"a", "A"} }},
		"many networks":     {"networks", func(r *AttachSandbox) { r.Networks = strings.Fields(strings.Repeat("n ", 65)) }},
		"nothing":           {"netns", func(r *AttachSandbox) { r.Netns = "" }},
		"both":              {"netns", func(r *AttachSandbox) { r.PID = 7 }},
		"relative":          {"netns", func(r *AttachSandbox) { r.Netns = "run/netns/x" }},
		"dots":              {"netns", func(r *AttachSandbox) { r.Netns = ".." }},
		"NUL":               {"netns", func(r *AttachSandbox) { r.Netns = "/a\x00" }},
		"long":              {"netns", func(r *AttachSandbox) { r.Netns = "/" + strings.Repeat("a", 5000) }},
		"negative pid":      {"pid", func(r *AttachSandbox) { r.Netns, r.PID = "", -1 }},
		"huge pid":          {"pid", func(r *AttachSandbox) { r.Netns, r.PID = "", 1<<22+1 }},
		"bad name":          {"name", func(r *AttachSandbox) { r.Name = "a/b" }},
		"relative file":     {"resolv_conf", func(r *AttachSandbox) { r.ResolvConf = "etc/resolv.conf" }},
		"auto for a path":   {"resolv_conf", func(r *AttachSandbox) { r.Netns, r.ResolvConf = "/proc/7/ns/net", "auto" }},
		"task with network": {"task", func(r *AttachSandbox) { r.Task = &AddTask{Service: "web", Network: "a"} }},
		"task with name":    {"task", func(r *AttachSandbox) { r.Task = &AddTask{Service: "web", Name: "c"} }},
		"task no service":   {"service", func(r *AttachSandbox) { r.Task = &AddTask{Ports: []string{"80"}} }},
		"task bad port":     {"ports", func(r *AttachSandbox) { r.Task = &AddTask{Service: "web", Ports: []string{"x"}} }},
		"task bad address":  {"ips", func(r *AttachSandbox) { r.Task = &AddTask{Service: "web", IPs: []string{"x"}} }},
		"VIP in two": {"vips", func(r *AttachSandbox) {
			r.Networks = []string{"a", "b"}
			r.Task = &AddTask{Service: "web", VIPs: []string{"10.9.0.9"}}
		}},
	} {
		r := good()
		tt.change(&r)
		_, err := r.Parse()
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != CodeInvalid || e.Field != tt.field || e.Hint == "" {
			t.Errorf("%s: %+v, want one about %s", name, err, tt.field)
		}
	}
	if _, err := good().Parse(); err != nil {
		t.Error(err)
	}
}

// Whatever a client sends, it is refused or becomes something that is safe to use.
func FuzzAttachSandbox(f *testing.F) {
	for _, seed := range []string{
		`{"networks":["a"],"netns":"web"}`,
		`{"networks":["a","b"],"pid":7,"resolv_conf":"auto","task":{"service":"s","ports":["80"]}}`,
		`{"networks":["a"],"netns":"../../etc","name":"x"}`, `{"networks":["a"],"netns":"/a/../b","resolv_conf":"/etc/x"}`,
		`{}`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var r AttachSandbox
		if json.Unmarshal(body, &r) != nil {
			return
		}
		p, err := r.Parse()
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if len(p.Networks) == 0 || (p.Netns == "") == (p.PID == 0) || p.Netns != "" &&
			(!path.IsAbs(p.Netns) || path.Clean(p.Netns) != p.Netns) {
			t.Fatalf("%+v", p)
		}
		if len(p.Tasks) != 0 && len(p.Tasks) != len(p.Networks) {
			t.Fatalf("%d tasks for %d networks", len(p.Tasks), len(p.Networks))
		}
		again, err := AttachSandbox{
			Networks: p.Networks, Netns: p.Netns, PID: p.PID, Name: p.Name,
			ResolvConf: p.ResolvConf,
		}.Parse()
		again.Tasks = p.Tasks
		if d := cmp.Diff(p, again); err != nil || d != "" {
			t.Fatalf("parsed again: %v\n%s", err, d)
		}
	})
}
