package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/mesh/config"
	"meshd/mesh/control"
)

// Registrations, networks and VIPs survive a restart of the daemon (S7, V2).
func TestRestartKeepsEverything(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	a.network("net", "10.96.0.0/16")
	vip := a.task("net", "web", "t1", "10.1.0.1").VIPs
	if len(vip) != 1 {
		t.Fatalf("VIPs %v", vip)
	}
	b := start(t, config.Config{Node: "b", Join: []string{a.addr()}})
	b.task2("net", "web", "t2", "10.1.0.2")
	wantTasks(t, a, "net", "web", "t1@a t2@b")
	wantTasks(t, b, "net", "web", "t1@a t2@b")
	before, err := a.Status(t.Context())
	a.must(err)
	a.stop()
	a = start(t, config.Config{Node: "a", DataDir: a.cfg.DataDir, Bind: before.Bind})
	wantTasks(t, b, "net", "web", "t1@a t2@b")
	wantTasks(t, a, "net", "web", "t1@a t2@b")
	after, err := a.Status(t.Context())
	a.must(err)
	if after.Incarnation <= before.Incarnation {
		t.Errorf("S7: incarnation %d after %d", after.Incarnation, before.Incarnation)
	}
	s, err := a.Service(t.Context(), control.ServiceRef{Network: "net", Name: "web"})
	a.must(err)
	if len(s.VIPs) != 1 || s.VIPs[0] != vip[0] {
		t.Errorf("V2: VIP %v after %v", s.VIPs, vip)
	}
	eventually(t, func() error {
		d, err := b.Diff(t.Context(), control.DiffRequest{})
		if err == nil && !d.Equal {
			err = errors.New("S10: tables differ")
		}
		return err
	})
}

func TestRefusals(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	a.network("net", "10.96.0.0/16")
	a.task("net", "web", "t1", "10.1.0.1")
	add := func(r control.AddTask) error {
		if r.Network == "" {
			r.Network = "net"
		}
		if r.IPs == nil {
			r.IPs = []string{"10.1.0.9"}
		}
		_, err := a.AddTask(t.Context(), r)
		return err
	}
	create := func(name, subnet string) error {
		_, err := a.CreateNetwork(t.Context(), control.CreateNetwork{Name: name, Subnet: subnet})
		return err
	}
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"id used twice", add(control.AddTask{Service: "web", ID: "t1"}), "already a task"},
		{"address in a pool", add(control.AddTask{Service: "web", IPs: []string{"10.96.3.4"}}), "is in the VIP pool"},
		{"unknown network", add(control.AddTask{Network: "nope", Service: "web"}), "not known"},
		{"port", add(control.AddTask{Service: "web", Ports: []string{"70000"}}), "65535"},
		{"pin outside", add(control.AddTask{Service: "web", VIPs: []string{"10.97.0.1"}}), "not in the pool"},
		{"pin of the pool itself", add(control.AddTask{Service: "web", VIPs: []string{"10.96.0.0"}}), "network or broadcast address of the pool 10.96.0.0/16"},
		{"pin of its broadcast address", add(control.AddTask{Service: "web", VIPs: []string{"10.96.255.255"}}), "network or broadcast address"},
		{"pin without a pool of the family", add(control.AddTask{Service: "web", VIPs: []string{"fd00::1"}}), "fd00::1 is not in the pool 10.96.0.0/16"},
		{"overlap", create("two", "10.96.128.0/17"), "overlaps"},
		{"small", create("two", "10.97.0.0/30"), "too small"},
		{"cidr", create("two", "10.97.0.0"), "subnet"},
		{"other definition", create("net", "10.98.0.0/16"), "exists with the pool"},
		{"pool over a task", create("two", "10.1.0.0/16"), "has an address in"},
		{"used network", a.RemoveNetwork(t.Context(), "net"), "is used"},
		{"unknown task", func() error { _, err := a.RemoveTask(t.Context(), control.TaskRef{ID: "zz"}); return err }(), "not known"},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, tt.err, tt.want)
		}
	}
	if err := create("net", "10.96.0.0/16"); err != nil {
		t.Errorf("the same definition again: %v", err)
	}
}

// A node without tasks in a network can remove it when nobody uses it (V6).
func TestRemoveNetworkEverywhere(t *testing.T) {
	a := start(t, config.Config{Node: "a", Reservation: config.Duration(time.Millisecond)})
	a.network("net", "10.96.0.0/16")
	b := start(t, config.Config{Node: "b", Join: []string{a.addr()}, Reservation: config.Duration(time.Millisecond)})
	b.task2("net", "web", "t1", "10.1.0.1")
	wantTasks(t, a, "net", "web", "t1@b")
	if err := a.RemoveNetwork(t.Context(), "net"); err == nil {
		t.Fatal("removed while in use")
	}
	_, err := b.RemoveTask(t.Context(), control.TaskRef{ID: "t1"})
	b.must(err)
	eventually(t, func() error { return a.RemoveNetwork(t.Context(), "net") })
	for _, n := range []*node{a, b} {
		eventually(t, func() error {
			if ns, err := n.Networks(t.Context()); err != nil || len(ns) > 0 {
				return errors.New(n.cfg.Node + " still knows the network")
			}
			return nil
		})
	}
}

func TestStartRefusals(t *testing.T) {
	corrupted := t.TempDir()
	path := filepath.Join(corrupted, "tasks.json")
	if err := os.WriteFile(path, []byte(`{"networks": {"net": {"tasks": {"t1": {"service": "web", "body": "AAAA"}}}}`),
		0o600); err != nil {
		t.Fatal(err)
	}
	others := t.TempDir()
	if err := os.WriteFile(filepath.Join(others, "node.json"), []byte(`{"node": "zoe", "incarnation": 7}`),
		0o600); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("not a key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	busy := start(t, config.Config{Node: "busy"})
	for _, tt := range []struct {
		name string
		cfg  config.Config
		want string
	}{
		{"corrupted", config.Config{Node: "a", DataDir: corrupted}, "is corrupted"},
		{"another node's data", config.Config{Node: "a", DataDir: others}, `belongs to node "zoe"`},
		{"data in use", config.Config{Node: "a", DataDir: busy.cfg.DataDir}, "another meshd uses it"},
		{"socket in use", config.Config{Node: "a", Socket: busy.cfg.Socket}, "already answers"},
		{"bad key", config.Config{Node: "a", KeyFile: key}, "line 1"},
		{"no key file", config.Config{Node: "a", KeyFile: key + "x"}, "does not exist"},
		{"bind", config.Config{Node: "a", Bind: "10.0.0"}, "not IP:PORT"},
		{"bind not here", config.Config{Node: "a", Bind: "192.0.2.7:7946", Insecure: true}, "not on this host"},
		{"dns", config.Config{Node: "a", DNS: []string{"nonsense"}}, "dns:"},
		{"ttl", config.Config{Node: "a", TTL: config.Duration(2 * time.Hour)}, "ttl:"},
		{"node", config.Config{Node: "a b"}, "node:"},
		{"upstream", config.Config{Node: "a", Upstream: []string{"ns.example"}}, "upstream:"},
		{"upstream of a domain", config.Config{Node: "a", Upstream: []string{"corp.example=ns"}}, "upstream:"},
		{"upstream of nothing", config.Config{Node: "a", Upstream: []string{"=10.0.0.1"}}, "corp.example=10.0.0.53"},
		{"upstream of no domain", config.Config{Node: "a", Upstream: []string{"a..b=10.0.0.1"}}, "not a domain name"},
		{"query-log", config.Config{Node: "a", QueryLog: -1}, "query-log:"},
	} {
		if _, err := tryStart(t, tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if b, _ := os.ReadFile(path); !strings.Contains(string(b), "AAAA") {
		t.Error("the corrupted file was overwritten")
	}
}

// G9: install, use and remove act on every node, and refuse what would lock somebody out.
func TestKeyRotation(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	const one, two = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
	a := start(t, config.Config{Node: "a", KeyFile: write("a", one)})
	b := start(t, config.Config{Node: "b", KeyFile: write("b", one), Join: []string{a.addr()}})
	eventually(t, func() error {
		if k, err := b.Keys(t.Context()); err != nil || k.Total != 2 || k.OK != 2 {
			return errors.New("b does not reach a")
		}
		return nil
	})
	if _, err := a.UseKey(t.Context(), control.KeyRequest{Key: two}); err == nil {
		t.Error("used a key that nobody has")
	}
	for _, op := range []func(context.Context, control.KeyRequest) (control.KeyReply, error){a.InstallKey, b.UseKey} {
		r, err := op(t.Context(), control.KeyRequest{Key: two})
		if err != nil || r.OK != 2 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if _, err := a.RemoveKey(t.Context(), control.KeyRequest{Key: two}); err == nil {
		t.Error("removed the key in use")
	}
	r, err := a.RemoveKey(t.Context(), control.KeyRequest{Key: one})
	if err != nil || r.OK != 2 || len(r.Keys) != 1 || r.Keys[0].Nodes != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	bind := b.addr()
	b.stop() // the keyring that the mesh changed outlives the process
	b = start(t, config.Config{Node: "b", KeyFile: b.cfg.KeyFile, DataDir: b.cfg.DataDir, Bind: bind})
	eventually(t, func() error {
		if k, err := b.Keys(t.Context()); err != nil || k.OK != 2 {
			return errors.New("b does not reach a after its restart")
		}
		return nil
	})
}

// Watch tells what happens, in order.
func TestWatch(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	a.network("net", "10.96.0.0/16")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events := make(chan control.Event, 64)
	go func() {
		_ = a.Watch(ctx, control.WatchRequest{}, func(e control.Event) error { events <- e; return nil })
	}()
	if e := <-events; e.Type != control.EventStart {
		t.Fatalf("first event %v", e)
	}
	a.task("net", "web", "t1", "10.1.0.1")
	await(ctx, t, events, control.EventEndpointAdded, control.EventVIPAssigned)
	_, err := a.RemoveTask(ctx, control.TaskRef{ID: "t1"})
	a.must(err)
	await(ctx, t, events, control.EventEndpointRemoved)
}

func TestMetrics(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	var b strings.Builder
	a.must(a.Metrics(t.Context(), &b))
	for _, want := range []string{
		"meshd_members{state=\"alive\"} 1", "meshd_table_checksum", "meshd_queue_length",
		"meshd_propagation_seconds",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// A network outlives the node that made it, also when all the others restart
// while it has lost its disk (V6).
func TestDefinitionSurvivesItsMaker(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	a.network("net", "10.90.0.0/24")
	b := start(t, config.Config{Node: "b", Join: []string{a.addr()}})
	eventually(t, func() error { _, err := b.Network(t.Context(), "net"); return err })
	want := b.task("net", "web", "w1", "10.0.0.1").VIPs
	if len(want) != 1 {
		t.Fatalf("web has the VIPs %v", want)
	}
	eventually(t, func() error {
		text, err := os.ReadFile(filepath.Join(b.cfg.DataDir, "meshd.db"))
		if err == nil && !strings.Contains(string(text), `"vip"`) {
			err = errors.New("the claim is not on disk yet")
		}
		return err
	})
	a.stop()
	b.stop()
	b = start(t, b.cfg)
	eventually(t, func() error {
		s, err := b.Service(t.Context(), control.ServiceRef{Network: "net", Name: "web"})
		if err == nil && (len(s.VIPs) != 1 || s.VIPs[0] != want[0]) {
			err = fmt.Errorf("web has the VIPs %v, want %v", s.VIPs, want)
		}
		return err
	})
}

// A network that nobody knows is no empty list, and whoever looks for it, or
// removes it, is not told to make it.
func TestUnknownNetworks(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	_, lb := a.LB(t.Context(), control.LBRequest{Network: "nosuch"})
	_, tasks := a.Tasks(t.Context(), control.TaskFilter{Network: "nosuch"})
	_, services := a.Services(t.Context(), "nosuch")
	_, network := a.Network(t.Context(), "nosuch")
	for what, err := range map[string]error{
		"lb ls": lb, "task ls": tasks, "service ls": services, "network inspect": network,
		"network rm": a.RemoveNetwork(t.Context(), "nosuch"),
	} {
		e, ok := errors.AsType[*control.Error](err)
		if !ok || e.Code != control.CodeNotFound || strings.Contains(e.Hint, "create") ||
			!strings.Contains(e.Hint, "network ls") {
			t.Errorf("%s: %+v", what, err)
		}
	}
	_, err := a.AddTask(t.Context(), control.AddTask{Network: "nosuch", Service: "web", IPs: []string{"10.1.0.9"}})
	if e, ok := errors.AsType[*control.Error](err); !ok || !strings.Contains(e.Hint, "network create nosuch") {
		t.Errorf("task add: %+v", err)
	}
}

// The control socket comes back when somebody removes it, and status says so.
func TestSocketComesBack(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	client := control.Dial(a.cfg.Socket)
	defer client.Close()
	_, err := client.Status(t.Context())
	a.must(err)
	a.must(os.Remove(a.cfg.Socket))
	eventually(t, func() error {
		again := control.Dial(a.cfg.Socket)
		defer again.Close()
		s, err := again.Status(t.Context())
		if err == nil && !strings.Contains(strings.Join(s.Warnings, "\n"), "somebody removed the control socket") {
			err = fmt.Errorf("warnings are %q", s.Warnings)
		}
		return err
	})
}

// TestTasksOfAFamilyWithoutPool covers V12: what no VIP reaches is said when it is
// registered, at once, and a name whose VIP would lead nowhere is answered with the
// tasks.
func TestTasksOfAFamilyWithoutPool(t *testing.T) {
	n := start(t, config.Config{Node: "a"})
	n.network("four", "10.96.0.0/24")
	_, err := n.CreateNetwork(t.Context(), control.CreateNetwork{
		Name: "both", Subnet: "10.97.0.0/24",
		Subnet6: "fd97::/64",
	})
	n.must(err)
	add := func(network, service, id string, ips ...string) control.TaskAdded {
		t.Helper()
		a, err := n.AddTask(t.Context(), control.AddTask{
			Network: network, Service: service, ID: id, IPs: ips,
			Ports: []string{"80"},
		})
		n.must(err)
		return a
	}
	for _, c := range []struct {
		task  control.TaskAdded
		vips  int
		words string
	}{
		{add("four", "web", "w6", "fd01::1"), 0, "the name is answered with the tasks"},
		{add("four", "web", "w4", "10.1.0.1"), 1, ""},
		{add("four", "web", "w7", "fd01::2"), 1, "no connections to the virtual IP reach fd01::2"},
		{add("four", "db", "d46", "10.1.0.2", "fd01::3"), 1, "no connections to the virtual IP reach fd01::3"},
		{add("both", "web", "b4", "10.1.0.3"), 1, ""},
		{add("both", "web", "b6", "fd01::4"), 2, ""},
	} {
		said := strings.Join(c.task.Warnings, "\n")
		if len(c.task.VIPs) != c.vips || !strings.Contains(said, c.words) || c.words == "" &&
			strings.Contains(said, "reach") {
			t.Errorf("V12: %s: VIPs %s, %q; want %d, %q", c.task.Task.ID, c.task.VIPs, said, c.vips, c.words)
		}
	}
	_, err = n.AddTask(t.Context(), control.AddTask{Network: "both", Service: "six", ID: "s6", IPs: []string{"fd01::5"}})
	n.must(err)
	s, err := n.Service(t.Context(), control.ServiceRef{Network: "both", Name: "six"})
	if err != nil || len(s.VIPs) != 1 || !s.VIPs[0].Is6() || len(s.Claims) != 2 || !s.Claims[0].Wins || !s.Claims[1].Wins {
		t.Fatalf("V12: %+v, %v", s, err)
	}
	held := s.Claims[0].VIP.String()
	_, err = n.AddTask(t.Context(), control.AddTask{
		Network: "both", Service: "other", ID: "o", IPs: []string{"10.1.0.9"},
		VIPs: []string{held},
	})
	if err == nil || !strings.Contains(err.Error(), `is the VIP of service "six"`) {
		t.Errorf("V3: %s, which is claimed and not served, is given away: %v", held, err)
	}
}
