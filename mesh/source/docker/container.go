package docker

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"meshd/mesh/control"
	"meshd/mesh/source"
	"meshd/state"
)

// Lengths of parts of a container's id, in hexadecimal digits.
const (
	shortID = 12 // as people see it, and the container's own host name
	taskID  = 25 // of its task: the same as long as the container exists
)

// shared begins the network mode of a container that is in the network namespace of
// another one, whose id follows.
const shared = "container:"

// look is what one look at a container found.
type look struct {
	self  container.InspectResponse
	other *container.InspectResponse // whose network namespace it is in; nil: its own, or not found
}

// description is what a look comes to.
type description struct {
	name    string    // of the container, for people
	ours    bool      // it has labels for meshd
	running bool      // it serves, as far as the engine says
	pid     int       // of its first process; 0: unknown
	started time.Time // of this life of the container

	tasks   []source.Task          // one for each network; none: it is not served
	checked bool                   // the engine checks its health
	verdict state.Health           // of the engine; for checked ones
	recheck bool                   // the verdict is starting, and may be what an engine says after its own restart
	sandbox *control.AttachSandbox // to be attached; nil: not

	dependent bool // on another container, whose network it uses

	left     string   // why it is left alone, for people; ""
	refused  string   // why what it asks for cannot be; ""
	warnings []string // what was passed over
}

// isID says that an engine's word can be the id of a container.
func isID(id string) bool {
	return len(id) >= taskID && len(id) <= 128 && !strings.ContainsFunc(id, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'f')
	})
}

// describe says what a container asks for and what can be had. It is pure.
func describe(id string, l *look, node []netip.Addr, now time.Time) *description {
	c := &l.self
	d := &description{name: strings.TrimPrefix(c.Name, "/")}
	if !printable(d.name) {
		d.name = id[:shortID]
	}
	if c.Config == nil || c.State == nil || c.NetworkSettings == nil || c.HostConfig == nil {
		d.refused = "the engine does not say all of it"
		return d
	}
	r, ours, err := parseLabels(c.Config.Labels)
	d.ours, d.warnings = ours, r.warnings
	s := c.State
	d.running, d.pid = s.Running && !s.Paused && !s.Restarting && !s.Dead, s.Pid
	d.dependent = c.HostConfig.NetworkMode.IsContainer()
	d.started, _ = time.Parse(time.RFC3339Nano, s.StartedAt)
	switch {
	case !ours:
		return d
	case r.disabled:
		d.left = "label mesh.enable says so"
	case r.oneOff:
		d.left = "it is a one-off container of compose run"
	case err != nil:
		d.refused = err.Error()
	}
	if d.left != "" || d.refused != "" || !d.running {
		return d
	}
	if r.check == nil {
		d.readHealth(c, now)
	}
	if d.recheck { // engines are known never to check again then (moby#41871)
		d.warnings = append(d.warnings, "the engine has not checked its health since the engine was restarted: what it "+
			"found before counts; restart the container if that stays so")
	}
	if r.task.Service != "" {
		d.makeTasks(id, l, &r, node)
	}
	if r.sandbox && d.refused == "" {
		d.makeSandbox(id, c, &r)
	}
	return d
}

// printable says that a name fits a line of a table.
func printable(name string) bool {
	return name != "" && len(name) <= source.MaxName && (&source.Task{Location: name}).Check() == nil
}

// readHealth takes over the verdict of the engine's HEALTHCHECK.
func (d *description) readHealth(c *container.InspectResponse, now time.Time) {
	h := c.State.Health
	if h == nil {
		return
	}
	switch h.Status {
	case container.Healthy:
		d.checked, d.verdict = true, state.HealthPassing
	case container.Unhealthy:
		d.checked, d.verdict = true, state.HealthFailing
	case container.Starting:
		d.checked, d.verdict = true, state.HealthStarting
		d.recheck = now.Sub(d.started) > startingFor(c.Config.Healthcheck)
	}
}

// startingFor is how long a container can be starting after its start. Longer, it is
// only because its engine has been restarted under it and knows of no check any more.
func startingFor(h *container.HealthConfig) time.Duration {
	const every, retries = 30 * time.Second, 3 // the engine's defaults
	if h == nil {
		return every * retries
	}
	interval, timeout := cmp.Or(h.Interval, every), cmp.Or(h.Timeout, every)
	n := min(max(h.Retries, 1), 100)
	if h.Retries == 0 {
		n = retries
	}
	return h.StartPeriod + time.Duration(n+1)*(min(interval, time.Hour)+min(timeout, time.Hour))
}

// makeTasks makes a task for each network.
func (d *description) makeTasks(id string, l *look, r *request, node []netip.Addr) {
	t := r.task
	t.ID = id[:taskID]
	d.takeNames(id, r, l, &t)
	at, err := locate(l, r, node)
	if err != nil {
		d.refused = err.Error()
		return
	}
	t.Ports = at.ports
	for _, a := range at.addrs {
		t.IPs = append(t.IPs, a.String())
	}
	if len(t.VIPs) > 0 && len(r.networks) > 1 {
		d.refused = "label mesh.vip: a VIP belongs to one network, the container to several"
		return
	}
	health := state.HealthPassing
	if d.checked {
		health = d.verdict
	}
	if r.check != nil {
		health = state.HealthStarting // none is served before its first check
	}
	for _, n := range slices.Compact(slices.Sorted(slices.Values(r.networks))) {
		t.Network = n
		if _, err := t.Parse(); err != nil {
			d.refused, d.tasks = labelled(err), nil
			return
		}
		d.tasks = append(d.tasks, source.Task{AddTask: t, Location: d.name, Health: health, Checks: r.check})
	}
}

// takeNames gives a task the names of its container: its name, its short id as the host
// name, and with mesh.compose the aliases of its network. One that cannot be a name of
// the mesh is left out: it was not chosen for it.
func (d *description) takeNames(id string, r *request, l *look, t *control.AddTask) {
	if name := strings.ToLower(d.name); state.CheckTaskName(name) == nil {
		t.Name = name
	} else {
		d.warnings = append(d.warnings, fmt.Sprintf("the container's name %s cannot be a name of the mesh", shown(d.name)))
	}
	if t.Hostname == "" && strings.ContainsAny(id[:shortID], "abcdef") {
		t.Hostname = id[:shortID]
	}
	if !r.compose {
		return
	}
	known := []string{id[:shortID], t.Name, strings.ToLower(t.Service)}
	for _, name := range slices.Sorted(maps.Keys(l.self.NetworkSettings.Networks)) {
		n := l.self.NetworkSettings.Networks[name]
		if n == nil {
			continue
		}
		for _, a := range n.Aliases {
			if a = strings.ToLower(a); !slices.Contains(known, a) && state.CheckTaskName(a) == nil && len(t.Aliases) < maxList {
				known, t.Aliases = append(known, a), append(t.Aliases, a)
			}
		}
	}
}

// labelled gives a refusal of the API the name of the label that it is about.
func labelled(err error) string {
	refusal, ok := errors.AsType[*control.Error](err)
	if !ok {
		return err.Error()
	}
	names := map[string]string{
		"ports": "mesh.port", "aliases": "mesh.alias", "vips": "mesh.vip", "ips": "mesh.address",
	}
	text := refusal.Message
	if rest, found := strings.CutPrefix(text, refusal.Field+": "); found && refusal.Field != "" {
		text = "label " + cmp.Or(names[refusal.Field], prefix+refusal.Field) + ": " + rest
	}
	if refusal.Hint != "" {
		text += "; " + refusal.Hint
	}
	return text
}

// makeSandbox asks for the container's namespace to be attached.
func (d *description) makeSandbox(id string, c *container.InspectResponse, r *request) {
	mode := string(c.HostConfig.NetworkMode)
	switch {
	case mode == network.NetworkHost:
		d.warnings = append(d.warnings, "label mesh.sandbox: a container in the host's network uses the host's name server")
		return
	case strings.HasPrefix(mode, shared):
		d.warnings = append(d.warnings, "label mesh.sandbox: set it on the container whose network this one uses")
		return
	case d.pid <= 0:
		d.warnings = append(d.warnings, "label mesh.sandbox: the engine does not say which process is the container's")
		return
	}
	name := strings.ToLower(d.name)
	if state.CheckTaskName(name) != nil {
		name = id[:shortID]
	}
	d.sandbox = &control.AttachSandbox{
		Networks: r.networks, PID: d.pid, Name: name, ResolvConf: control.ResolvConfAuto,
	}
	if _, err := d.sandbox.Parse(); err != nil {
		d.refused, d.sandbox = labelled(err), nil
	}
}
