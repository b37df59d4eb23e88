package docker

import (
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"go.yaml.in/yaml/v3"

	"meshd/mesh/health"
	"meshd/state"
)

const someID = "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c0000"

// inspection is a container with labels, in networks.
func inspection(labels, in map[string]string) container.InspectResponse {
	all := map[string]*network.EndpointSettings{}
	for name, a := range in {
		all[name] = &network.EndpointSettings{
			IPAddress: netip.MustParseAddr(a), Aliases: []string{"db", "4c01db0b339c", "Main"},
		}
	}
	return container.InspectResponse{
		ID: someID, Name: "/shop-web-1", HostConfig: &container.HostConfig{NetworkMode: "bridge"},
		State:  &container.State{Running: true, Pid: 7, StartedAt: "2026-11-30T12:00:00.5Z"},
		Config: &container.Config{Labels: labels}, NetworkSettings: &container.NetworkSettings{Networks: all},
	}
}

var oneNetwork = map[string]string{"bridge": "172.17.0.2"}

func described(c container.InspectResponse) *description {
	node := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	return describe(someID, &look{self: c}, node, time.Date(2026, 11, 30, 12, 0, 1, 0, time.UTC))
}

// with returns labels of a service with others.
func with(pairs ...string) map[string]string {
	m := map[string]string{"mesh.network": "front", "mesh.service": "web"}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

func TestLabels(t *testing.T) {
	c := inspection(with("mesh.network", "front, Back", "mesh.port", "http:80/tcp 53/udp", "mesh.alias", "www,shop",
		"mesh.weight", "3", "mesh.slot", "2", "mesh.mode", "dnsrr", "mesh.ttl", "2s", "mesh.scheduler", "sh",
		"mesh.hostname", "one"), oneNetwork)
	d := described(c)
	if d.refused != "" || len(d.tasks) != 2 || len(d.warnings) != 0 {
		t.Fatalf("%+v", d)
	}
	p, err := d.tasks[1].Parse()
	if err != nil {
		t.Fatal(err)
	}
	e := p.Endpoint
	s := p.Settings(state.Settings{})
	if p.Network != "front" || e.ID != someID[:25] || e.Service != "web" || e.Slot != 2 || e.Weight != 3 ||
		e.Hostname != "one" || e.Name != "shop-web-1" || e.IP4 != netip.MustParseAddr("172.17.0.2") || len(e.Ports) != 2 ||
		!slices.Equal(e.Aliases, []string{"www", "shop"}) || s.Mode != state.ModeDNSRR || s.TTL != 2*time.Second ||
		s.Scheduler != "sh" {
		t.Errorf("%+v, %+v", e, s)
	}
}

// What labels cannot have is refused with the name of the label and what to write.
func TestRefusedLabels(t *testing.T) {
	for _, x := range []struct {
		labels map[string]string
		in     map[string]string
		says   string
	}{
		{map[string]string{"mesh.service": "web"}, oneNetwork, "label mesh.network is missing"},
		{map[string]string{"mesh.network": "front"}, oneNetwork, "label mesh.service is missing"},
		{with("mesh.port", "80;rm"), oneNetwork, "label mesh.port: "},
		{with("mesh.port", " "), oneNetwork, "label mesh.port: it has no value"},
		{with("mesh.weight", "-1"), oneNetwork, "label mesh.weight: \"-1\" is not a weight"},
		{with("mesh.slot", "0"), oneNetwork, "label mesh.slot: "},
		{with("mesh.sandbox", "maybe"), oneNetwork, "label mesh.sandbox: \"maybe\" is neither true nor false"},
		{with("mesh.alias", "github.com"), oneNetwork, "label mesh.alias"},
		{with("mesh.mode", "x"), oneNetwork, "label mesh.mode"},
		{with("mesh.service", "a b\x1b[31m"), oneNetwork, "label mesh.service"},
		{with("mesh.service", strings.Repeat("x", 5000)), oneNetwork, "at most 4096"},
		{with("mesh.alias", strings.Repeat("a ", 65)), oneNetwork, "at most 64"},
		{with("mesh.check", "exec:/bin/true"), oneNetwork, "a label runs no program on the host"},
		{with("mesh.check.type", "exec", "mesh.check.command", "/bin/true"), oneNetwork, "label mesh.check"},
		{with("mesh.check", "http://:80/", "mesh.check.interval", "1"), oneNetwork, "label mesh.check.interval: "},
		{with("mesh.check", "???"), oneNetwork, "label mesh.check: "},
		{with("mesh.vip", "10.96.0.9", "mesh.network", "a,b"), oneNetwork, "label mesh.vip"},
		{with("mesh.address", "10.0.0.1"), oneNetwork, "label mesh.address: 10.0.0.1 is no address of the container"},
		{with("mesh.address", "127.0.0.1"), oneNetwork, "no address of the container"},
		{with("mesh.address", "network:x"), oneNetwork, `no address in network "x", but in "bridge"`},
		{with("mesh.address", "???"), oneNetwork, "write node, network:NAME"},
		{with("mesh.address", "node"), oneNetwork, "publishes no port"},
		{with("mesh.address", "node", "mesh.port", "80"), oneNetwork, "port 80/tcp is not published"},
		{with(), nil, "no address in a network of the engine"},
		{with(), map[string]string{"a": "10.1.0.1", "b": "10.2.0.1"}, `in 2 networks: choose one by label mesh.address=network:NAME, of "a", "b"`},
	} {
		d := described(inspection(x.labels, x.in))
		if !strings.Contains(d.refused, x.says) || len(d.tasks) != 0 || strings.ContainsRune(d.refused, '\x1b') {
			t.Errorf("%.80v: %q, want %q", x.labels, d.refused, x.says)
		}
	}
}

// A check that labels define is handed over with the task, which is not served before it,
// and takes the place of the engine's.
func TestCheckLabels(t *testing.T) {
	c := inspection(with("mesh.check", "http://:8080/healthz", "mesh.check.fall", "2"), oneNetwork)
	c.State.Health = &container.Health{Status: container.Healthy}
	d := described(c)
	if d.refused != "" || len(d.tasks) != 1 || d.checked || d.tasks[0].Health != state.HealthStarting {
		t.Fatalf("%+v", d)
	}
	checks, err := health.Decode(d.tasks[0].Checks)
	if err != nil || len(checks) != 1 || checks[0].Definition.Port != 8080 || checks[0].Definition.Fall != 2 {
		t.Errorf("%+v, %v", checks, err)
	}
}

func TestUnknownLabels(t *testing.T) {
	d := described(inspection(with("mesh.netwrk", "x", "mesh.something-else", "y", "traefik.enable", "true"), oneNetwork))
	want := []string{
		`label "mesh.netwrk" is not known; did you mean mesh.network?`, `label "mesh.something-else" is not known`,
	}
	if !slices.Equal(d.warnings, want) {
		t.Errorf("%q", d.warnings)
	}
	if len(d.tasks) != 1 {
		t.Error("an unknown label stops the task")
	}
}

// Nobody is asked about containers without labels for meshd, and some are left alone.
func TestLeftAlone(t *testing.T) {
	if d := described(inspection(map[string]string{"traefik.enable": "true"}, oneNetwork)); d.ours || d.refused != "" {
		t.Errorf("%+v", d)
	}
	for _, labels := range []map[string]string{
		with("mesh.enable", "false"), with(composeOneOff, "True"), {"mesh.enable": "off"},
	} {
		if d := described(inspection(labels, oneNetwork)); d.left == "" || d.refused != "" || len(d.tasks) != 0 {
			t.Errorf("%v: %+v", labels, d)
		}
	}
}

// The networks that a container is in, shares or publishes to say where it is reached.
func TestPlaces(t *testing.T) {
	chosen := inspection(with("mesh.address", "network:b"), map[string]string{"a": "10.1.0.1", "b": "10.2.0.1"})
	host := inspection(with("mesh.port", "8080"), nil)
	host.HostConfig.NetworkMode = network.NetworkHost
	second := inspection(with("mesh.address", "192.0.2.2"), nil)
	second.HostConfig.NetworkMode = network.NetworkHost
	foreign := inspection(with("mesh.address", "192.0.2.9"), nil)
	foreign.HostConfig.NetworkMode = network.NetworkHost
	binding := func(host, port string) []network.PortBinding {
		return []network.PortBinding{{HostIP: netip.MustParseAddr(host), HostPort: port}}
	}
	publishing := func(port, at string, labels ...string) container.InspectResponse {
		c := inspection(with(append(labels, "mesh.address", "node")...), oneNetwork)
		c.NetworkSettings.Ports = network.PortMap{network.MustParsePort("80/tcp"): binding(at, port)}
		return c
	}
	for name, x := range map[string]struct {
		c     container.InspectResponse
		addr  string
		ports string
		says  string
	}{
		"chosen":    {chosen, "10.2.0.1", "", ""},
		"host":      {host, "192.0.2.1", "8080", ""},
		"second":    {second, "192.0.2.2", "", ""},
		"foreign":   {foreign, "", "", "no address of this node"},
		"published": {publishing("80", "0.0.0.0"), "192.0.2.1", "80/tcp", ""},
		"at it":     {publishing("80", "192.0.2.1"), "192.0.2.1", "80/tcp", ""},
		"loopback":  {publishing("80", "127.0.0.1"), "", "", "is not published"},
		"IPv6 only": {publishing("80", "::"), "192.0.2.1", "80/tcp", ""},
		"garbage":   {publishing("x", "0.0.0.0"), "", "", "is not published"},
	} {
		d := described(x.c)
		if x.says != "" {
			if !strings.Contains(d.refused, x.says) {
				t.Errorf("%s: %q", name, d.refused)
			}
			continue
		}
		if len(d.tasks) != 1 || strings.Join(d.tasks[0].IPs, " ") != x.addr ||
			strings.Join(d.tasks[0].Ports, " ") != x.ports {
			t.Errorf("%s: %+v", name, d)
		}
	}
	at := place{addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, ports: []string{"web:80"}}
	c := publishing("32768", "0.0.0.0")
	got, err := published(&c, &at)
	if err != nil || !slices.Equal(got.ports, []string{"web:80:32768/tcp"}) {
		t.Errorf("another port of the host: %v, %v", got, err)
	}
	inside := inspection(with(), nil)
	inside.HostConfig.NetworkMode = "container:" + someID
	other := inspection(nil, map[string]string{"x": "10.9.0.9"})
	d := describe(someID, &look{self: inside, other: &other}, nil, time.Now())
	if len(d.tasks) != 1 || d.tasks[0].IPs[0] != "10.9.0.9" || !d.dependent {
		t.Errorf("%+v", d)
	}
	if d := describe(someID, &look{self: inside}, nil, time.Now()); !strings.Contains(d.refused, "is not there") {
		t.Errorf("%+v", d)
	}
}

// With mesh.compose, names are those that Compose gives.
func TestCompose(t *testing.T) {
	d := described(inspection(map[string]string{
		"mesh.compose": "true", composeProject: "shop", composeService: "web", composeNumber: "3",
	}, oneNetwork))
	if d.refused != "" || len(d.tasks) != 1 {
		t.Fatalf("%+v", d)
	}
	if k := d.tasks[0]; k.Network != "shop" || k.Service != "web" || k.Slot != 3 || k.Name != "shop-web-1" ||
		!slices.Equal(k.Aliases, []string{"db", "main"}) {
		t.Errorf("%+v", k)
	}
	plain := described(inspection(with(composeService, "other"), oneNetwork))
	if k := plain.tasks[0]; k.Service != "web" || len(k.Aliases) != 0 || k.Slot != 0 {
		t.Errorf("%+v", k)
	}
}

// The labels of examples/compose can be followed.
func TestComposeExample(t *testing.T) {
	text, err := os.ReadFile("../../../examples/compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Labels map[string]string
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	labelled := 0
	for name, s := range file.Services {
		c := inspection(s.Labels, oneNetwork)
		c.NetworkSettings.Ports = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "80"}}}
		d := described(c)
		if d.refused != "" || len(d.warnings) != 0 {
			t.Errorf("%s: %q, %q", name, d.refused, d.warnings)
		}
		if d.ours {
			labelled++
		}
	}
	if labelled != 2 {
		t.Errorf("%d services have labels, want 2", labelled)
	}
}

// States in which a container does not serve, and incomplete answers, give no task.
func TestStates(t *testing.T) {
	for name, change := range map[string]func(c *container.InspectResponse){
		"exited":     func(c *container.InspectResponse) { c.State.Running = false },
		"paused":     func(c *container.InspectResponse) { c.State.Paused = true },
		"restarting": func(c *container.InspectResponse) { c.State.Restarting = true },
		"dead":       func(c *container.InspectResponse) { c.State.Dead = true },
		"no state":   func(c *container.InspectResponse) { c.State = nil },
		"no config":  func(c *container.InspectResponse) { c.Config = nil },
		"no network": func(c *container.InspectResponse) { c.NetworkSettings = nil },
		"no host":    func(c *container.InspectResponse) { c.HostConfig = nil },
		"nil":        func(c *container.InspectResponse) { c.NetworkSettings.Networks["bridge"] = nil },
	} {
		c := inspection(with(), oneNetwork)
		change(&c)
		if d := described(c); len(d.tasks) != 0 {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// Names that the engine gave and the mesh cannot have are left out; the task stays.
func TestNamesOfContainers(t *testing.T) {
	for _, x := range []struct {
		name, want string
		warnings   int
	}{
		{"/Web_1", "web_1", 0}, {"/my.app.com", "", 1}, {"/", someID[:12], 0}, {"/a\x1b[31m", someID[:12], 0},
	} {
		c := inspection(with(), oneNetwork)
		c.Name = x.name
		if d := described(c); len(d.tasks) != 1 || d.tasks[0].Name != x.want || len(d.warnings) != x.warnings {
			t.Errorf("%q: %+v", x.name, d)
		}
	}
}

// docs/DOCKER.md has the labels that there are, each with a value.
func TestSetters(t *testing.T) {
	text, err := os.ReadFile("../../../docs/DOCKER.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(mesh\\.[a-z]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, m[1])
	}
	known := append(slices.Collect(maps.Keys(setters)), checkLabel)
	slices.Sort(known)
	slices.Sort(documented)
	if !slices.Equal(known, documented) {
		t.Errorf("documented are\n%v, known\n%v", documented, known)
	}
	for _, name := range slices.Sorted(maps.Keys(setters)) {
		r := request{}
		if err := r.set(name, ""); err == nil {
			t.Errorf("%s takes an empty value", name)
		}
	}
}

// Whatever labels say, nothing panics, and what is registered passes the API's checks.
func FuzzLabels(f *testing.F) {
	f.Add("mesh.port", "80", "mesh.address", "node", "x")
	f.Add("mesh.compose", "1", composeService, "a", "b.c")
	f.Add("mesh.check.http.port", "80", "mesh.alias", ",", "/")
	f.Fuzz(func(t *testing.T, a, b, c, d, name string) {
		x := inspection(with(a, b, c, d), oneNetwork)
		x.Name = name
		x.NetworkSettings.Ports = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: b}}}
		for _, task := range described(x).tasks {
			if _, err := task.Parse(); err != nil {
				t.Error(err)
			}
			if err := task.Check(); err != nil {
				t.Error(err)
			}
		}
	})
}
