package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"meshd/mesh/control"
)

func sandboxes() []control.Sandbox {
	return []control.Sandbox{
		{
			ID: "x1y2z3", Name: "web.1", State: "ready", Networks: []string{"collabnet", "backend"}, Netns: "/run/netns/web",
			Inode:     4026532000,
			Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("fd00::7")}, DNS: "127.0.0.11:53",
			LBDriver: "ipvs",
			Service:  "web", Task: "3f9c", Since: when, Problems: []string{},
		},
		{ID: "a1b2c3", Name: "worker", State: "degraded", Networks: []string{"collabnet"}, PID: 4711, Inode: 4026532111, LBDriver: "none", Since: when, Problems: []string{"dns: no"}},
	}
}

func (n *node) Sources(context.Context) ([]control.SourceUnit, error) {
	return []control.SourceUnit{
		{Origin: "docker", Unit: "web-1", ID: "3f9c", State: control.UnitServed, Tasks: 2, Since: when, Problems: []string{}},
		{Origin: "docker", Unit: "web-2", ID: "4a1d", State: control.UnitRefused, Since: when, Problems: []string{"label mesh.network is missing: name the networks in which the container is found"}},
	}, n.call()
}

func (n *node) AttachSandbox(_ context.Context, req control.AttachSandbox) (control.SandboxAttached, error) {
	b, _ := json.Marshal(req)
	n.added = string(b)
	return control.SandboxAttached{Sandbox: sandboxes()[0], Warnings: []string{"no VIP yet"}}, n.call()
}

func (n *node) DetachSandbox(_ context.Context, ref string) (control.SandboxDetached, error) {
	if ref == "gone" {
		return control.SandboxDetached{}, control.Refuse(control.CodeNotFound, "meshctl sandbox ls lists them",
			"sandbox %q is not known", ref)
	}
	return control.SandboxDetached{Sandbox: sandboxes()[0], Warnings: []string{"resolv.conf: changed"}}, n.call()
}

func (n *node) Sandboxes(context.Context) ([]control.Sandbox, error) { return sandboxes(), n.call() }

func (n *node) Sandbox(context.Context, string) (control.SandboxDetail, error) {
	d := control.SandboxDetail{
		Sandbox: sandboxes()[0], Redirected: true, DNSPort: 40001,
		ResolvConf: "/etc/netns/web/resolv.conf",
	}
	d.Problems = []string{"load balancer: no"}
	d.LB = control.LBTable{Sandbox: "web.1", Driver: "ipvs", Why: "works", Services: []control.LBService{}}
	return d, n.call()
}

// What the flags of "sandbox attach" become on the other side.
func TestSandboxAttachRequest(t *testing.T) {
	for line, want := range map[string]string{
		"--netns web --network a,B": `{"networks":["a","B"],"netns":"web"}`,
		"--pid 12 --network a --name c.1 --resolv-conf auto --service web --port 80 --ip 10.0.0.1 --slot 2 --weight 3": `{"networks":["a"],"pid":12,"name":"c.1","resolv_conf":"auto",` +
			`"task":{"network":"","service":"web","slot":2,"ips":["10.0.0.1"],"ports":["80"],"weight":3}}`,
	} {
		b := newBench(t)
		got := b.run(t.Context(), strings.Fields("sandbox attach "+line)...)
		if b.added != want || got.code != exitDone {
			t.Errorf("%s:\ngot  %s\nwant %s\n%+v", line, b.added, want, got)
		}
	}
}

func TestSandboxUsageErrors(t *testing.T) {
	for line, says := range map[string]string{
		"attach":                                                     "--network: a sandbox needs a network",
		"attach --network n":                                         "--netns: exactly one",
		"attach --network n --netns a/b":                             "--netns: \"a/b\" is relative",
		"attach --network n,N --netns a":                             "--network: \"n\" is given twice",
		"attach --network a.b --netns a":                             "--network: ",
		"attach --network n --pid 0":                                 "--pid: ",
		"attach --network n --pid 99999999":                          "--pid: ",
		"attach --network n --pid 7 --netns a":                       "--netns: exactly one",
		"attach --network n --netns a --name -":                      "--name: ",
		"attach --network n --netns a --resolv-conf x":               "--resolv-conf: ",
		"attach --network n --netns /a/b --resolv-conf auto":         "--resolv-conf: auto needs",
		"attach --network n --netns a --port 80":                     "--service: ",
		"attach --network n --netns a --service s --port http":       "--port: ",
		"attach --network n,m --netns a --service s --vip 10.9.0.1":  "--vip: ",
		"attach --network n --netns a --service s --scheduler dance": "--scheduler: ",
		"detach":        "NAME|ID is missing",
		"detach a ../b": "NAME: ",
		"inspect a b":   "unexpected argument",
	} {
		b := newBench(t)
		got := b.run(t.Context(), strings.Fields("sandbox "+line)...)
		if got.code != exitUsage || !strings.Contains(got.stderr, says) || b.asked > 0 {
			t.Errorf("sandbox %s: asked %d times, want %q: %+v", line, b.asked, says, got)
		}
	}
}
