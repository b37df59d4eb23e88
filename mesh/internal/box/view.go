package box

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"meshd/mesh/control"
	"meshd/mesh/sandbox"
)

// describe returns the sandbox as the API shows it.
func (b *Sandbox) describe() control.Sandbox {
	s := b.record.load()
	out := control.Sandbox{
		ID: b.id, Name: b.name, Networks: s.Networks, Netns: s.Netns, PID: s.PID, Inode: s.Identity.Ino,
		Addresses: append([]netip.Addr{}, s.Addresses...), LBDriver: cmp.Or(b.balancer.Driver(), "none"),
		Service: s.Service, Task: s.Task, Since: s.Since, Problems: b.problems(),
	}
	if b.names.answering() {
		out.DNS = sandbox.ServerAddr.String()
	}
	out.State = b.state(s.Ending, len(out.Problems) > 0)
	return out
}

// tasks returns the ids of the tasks of all sandboxes. A container may take over the
// address of another one whose end is not noticed yet (N5).
func (m *Manager) tasks() map[string]bool {
	out := map[string]bool{}
	for _, b := range m.List() {
		if id := b.record.load().Task; id != "" {
			out[id] = true
		}
	}
	return out
}

func (b *Sandbox) state(ending, troubled bool) string {
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
func (b *Sandbox) problems() []string {
	return append(append([]string{}, b.notes.All()...), b.balancer.Problems()...)
}

// MaxNamed bounds how many sandboxes a status names.
const MaxNamed = 10

// Troubles says which sandboxes have problems other than those of their balancers.
func (m *Manager) Troubles() (out []string) {
	more := 0
	for _, b := range m.List() {
		notes := b.notes.All()
		switch {
		case len(notes) == 0:
		case len(out) >= MaxNamed:
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

// refuseTarget is the error about a namespace that cannot be opened, in the words of the
// request.
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
