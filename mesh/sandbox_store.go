package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/sandbox"
	"meshd/mesh/store"
	"meshd/state"
)

// sandboxFile is sandboxes.json.
type sandboxFile struct {
	Sandboxes []savedSandbox `json:"sandboxes"`
}

// savedSandbox is what must survive the process about one sandbox.
type savedSandbox struct {
	ID         string              `json:"id"`
	Name       string              `json:"name"`
	Networks   []string            `json:"networks"` // in order of lookup
	Netns      string              `json:"netns,omitempty"`
	PID        int                 `json:"pid,omitempty"`
	Identity   sandbox.Identity    `json:"identity"`
	Addresses  []netip.Addr        `json:"addresses,omitempty"`
	Port       uint16              `json:"port,omitempty"` // of the name server, to be taken again
	Service    string              `json:"service,omitempty"`
	Task       string              `json:"task,omitempty"` // its id in each of Networks
	ResolvConf *sandbox.ResolvConf `json:"resolv_conf,omitempty"`
	Since      time.Time           `json:"since"`
	Ending     bool                `json:"ending,omitempty"` // being taken down: to be finished, not to be served
}

func (s *savedSandbox) target() sandbox.Target { return sandbox.Target{Path: s.Netns, PID: s.PID} }

// readSandboxes reads sandboxes.json and checks every record in it.
func readSandboxes(d *store.Dir) ([]savedSandbox, error) {
	var f sandboxFile
	if err := d.Load(fileSandboxes, &f); err != nil {
		return nil, err
	}
	if name, err := f.check(); err != nil {
		return nil, d.Corrupted(fileSandboxes, fmt.Errorf("sandbox %q: %w", name, err),
			"restore it from a backup, or move it away and attach again")
	}
	return f.Sandboxes, nil
}

// check refuses what meshd would not have written, with the name of the sandbox.
func (f *sandboxFile) check() (name string, _ error) {
	seen := map[string]bool{}
	for i := range f.Sandboxes {
		s := &f.Sandboxes[i]
		err := s.check()
		if err == nil && (seen[s.ID] || seen[s.Name]) {
			err = errors.New("it is there twice")
		}
		if err != nil {
			return s.Name, err
		}
		seen[s.ID], seen[s.Name] = true, true
	}
	return "", nil
}

func (s *savedSandbox) check() error {
	req := control.AttachSandbox{Networks: s.Networks, Netns: s.Netns, PID: s.PID, Name: s.Name}
	p, err := req.Parse()
	if err != nil {
		return err
	}
	if err := state.CheckName(s.ID); err != nil {
		return fmt.Errorf("id: %w", err)
	}
	if s.Name == "" || p.Netns != s.Netns {
		return errors.New("name or netns is not as meshd writes it")
	}
	if (s.Service == "") != (s.Task == "") {
		return errors.New("service without task, or task without service")
	}
	for _, n := range []string{s.Service, s.Task} {
		if n == "" {
			continue
		}
		if err := state.CheckName(n); err != nil {
			return err
		}
	}
	if len(s.Addresses) == 0 {
		return errors.New("without an address")
	}
	for _, a := range s.Addresses {
		if !a.IsValid() || a.Zone() != "" {
			return fmt.Errorf("address %q", a)
		}
	}
	r := s.ResolvConf
	if r == nil {
		return nil
	}
	if !path.IsAbs(r.Path) || r.Root != "" && r.Root != sandbox.ProcessRoot(s.PID) {
		return fmt.Errorf("resolv_conf: %q in %q", r.Path, r.Root)
	}
	if r.Root != "" && r.Start == 0 { // written before that was noted
		r.Start = s.Identity.Start
	}
	return nil
}

// pick returns the first address of a family, or the zero Addr.
func pick(all []netip.Addr, want4 bool) netip.Addr {
	for _, a := range all {
		if a.Is4() == want4 {
			return a
		}
	}
	return netip.Addr{}
}
