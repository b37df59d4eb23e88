package mesh

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"meshd/mesh/control"
	"meshd/mesh/metrics"
	"meshd/mesh/sandbox"
)

// describe is the sandbox for people and programs.
func (b *box) describe() control.Sandbox {
	b.mu.Lock()
	s, bound := b.saved, b.bound
	b.mu.Unlock()
	out := control.Sandbox{
		ID: b.id, Name: b.name, Networks: s.Networks, Netns: s.Netns, PID: s.PID, Inode: s.Identity.Ino,
		Addresses: append([]netip.Addr{}, s.Addresses...), LBDriver: orNone(b.balancer.Counters().Driver),
		Service: s.Service, Task: s.Task, Since: s.Since, Problems: b.problems(),
	}
	if bound != nil {
		out.DNS = sandbox.ServerAddr.String()
	}
	out.State = b.state(s.Ending, len(out.Problems) > 0)
	return out
}

// tasks returns the ids of the tasks of all sandboxes. A container that takes
// over the address of one whose end is not noticed yet is not turned away for it.
func (m *sandboxes) tasks() map[string]bool {
	out := map[string]bool{}
	for _, b := range m.list() {
		b.mu.Lock()
		if id := b.saved.Task; id != "" {
			out[id] = true
		}
		b.mu.Unlock()
	}
	return out
}

func (b *box) state(ending, troubled bool) string {
	switch {
	case ending:
		return control.SandboxEnding
	case !closed(b.ready):
		return control.SandboxStarting
	case troubled:
		return control.SandboxDegraded
	}
	return control.SandboxReady
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// problems lists what does not work in the sandbox.
func (b *box) problems() []string {
	out := append([]string{}, b.notes.All()...)
	c := b.balancer.Counters()
	if c.Driver == "" && c.Unsupported && b.m.node.cfg.LB != "none" {
		out = append(out, "no load balancer in it: vip services are answered with their tasks; meshctl sandbox inspect "+
			"says why")
	}
	if c.LastError != "" {
		out = append(out, "load balancer: "+c.LastError)
	}
	if c.Waiting > 0 {
		out = append(out, fmt.Sprintf("load balancer: %d services refuse connections, since all of them together have too "+
			"many ports and backends", c.Waiting))
	}
	return append(out, refusals(b.balancer, "")...)
}

// toldBoxes bounds how many sandboxes a status names.
const toldBoxes = 10

// troubles says which sandboxes have problems that their balancers do not tell.
func (m *sandboxes) troubles() (out []string) {
	more := 0
	for _, b := range m.list() {
		notes := b.notes.All()
		switch {
		case len(notes) == 0:
		case len(out) >= toldBoxes:
			more++
		default:
			out = append(out, "sandbox "+b.name+": "+strings.Join(notes, "; "))
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("%d more sandboxes have problems; meshctl sandbox ls shows them", more))
	}
	return out
}

// refuseTarget says in terms of the request why a namespace cannot be opened.
func refuseTarget(p *control.ParsedSandbox, err error) error {
	field, missing := "netns", "give the path of a network namespace as meshd sees it; \"ip netns list\" shows those "+
		"in /run/netns"
	if p.PID > 0 {
		field, missing = "pid", "give the id of a running process of the container, as meshd sees it"
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return control.Refuse(control.CodeNotFound, missing, "%s: %v", field, err)
	case errors.Is(err, sandbox.ErrGone):
		return control.Refuse(control.CodeNotFound, missing, "%s: %v", field, err)
	case errors.Is(err, sandbox.ErrNotNamespace):
		return control.Refuse(control.CodeRefused, missing, "%s: %v", field, err)
	case errors.Is(err, sandbox.ErrOwn):
		return control.Refuse(control.CodeRefused, "the host needs no sandbox: meshd serves it already", "%s: %v", field, err)
	case errors.Is(err, fs.ErrPermission):
		return control.Refuse(control.CodeUnavailable,
			"run meshd as root, or give it CAP_SYS_ADMIN and, for processes of others, CAP_SYS_PTRACE", "%s: %v", field, err)
	case errors.Is(err, errors.ErrUnsupported):
		return control.Refuse(control.CodeUnavailable, "run meshd on Linux", "%s: sandboxes need network namespaces", field)
	}
	return control.Refuse(control.CodeRefused, missing, "%s: %v", field, err)
}

// collect sends how many containers there are (L4); those of their load balancers are
// sent with the host's.
func (m *sandboxes) collect(e metrics.Emitter) {
	states := map[string]int{
		control.SandboxStarting: 0, control.SandboxReady: 0, control.SandboxDegraded: 0,
		control.SandboxEnding: 0,
	}
	for _, b := range m.list() {
		states[b.describe().State]++
	}
	for state, count := range states {
		e.Gauge("meshd_sandboxes", "Sandboxes by state.", float64(count), "state", state)
	}
	e.Counter("meshd_sandbox_changes_total", "Sandboxes attached, detached and lost with their namespaces.",
		m.attached.Load(), "change", "attached")
	e.Counter("meshd_sandbox_changes_total", "Sandboxes attached, detached and lost with their namespaces.",
		m.detached.Load(), "change", "detached")
	e.Counter("meshd_sandbox_changes_total", "Sandboxes attached, detached and lost with their namespaces.",
		m.lost.Load(), "change", "lost")
	e.Counter("meshd_sandbox_redirects_total", "Redirects of port 53 that somebody had removed, and that were made again.",
		m.redirects.Load())
	e.Counter("meshd_sandbox_redirects_prompted_total", "Of them, those whose removal the kernel told.",
		m.redirectsPrompted.Load())
}
