package box

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/sandbox"
	"meshd/state"
)

// file is sandboxes.json.
type file struct {
	Sandboxes []Saved `json:"sandboxes"`
}

// Saved is what must survive the process about one sandbox.
type Saved struct {
	// What it is. Fixed when it is attached.

	ID        string           `json:"id"`                  // unique on this node
	Name      string           `json:"name"`                // unique on this node, ids included
	Networks  []string         `json:"networks"`            // in order of lookup
	Netns     string           `json:"netns,omitempty"`     // path of the namespace, or "" if PID is set
	PID       int              `json:"pid,omitempty"`       // process whose namespace it is, or 0
	Identity  sandbox.Identity `json:"identity"`            // of the namespace
	Addresses []netip.Addr     `json:"addresses,omitempty"` // of the container, at least one
	Service   string           `json:"service,omitempty"`   // of its task; "" if it has none
	Task      string           `json:"task,omitempty"`      // id of its task in each of Networks
	Since     time.Time        `json:"since"`               // when it was attached

	// How far it is.

	Port       uint16              `json:"port,omitempty"`        // of the name server, to be taken again
	ResolvConf *sandbox.ResolvConf `json:"resolv_conf,omitempty"` // the file that was changed; nil: none
	Ending     bool                `json:"ending,omitempty"`      // to be taken down, and not to be served
}

func (s *Saved) target() sandbox.Target { return sandbox.Target{Path: s.Netns, PID: s.PID} }

// CorruptError says that sandboxes.json holds what meshd cannot have written.
type CorruptError struct {
	Name string // of the sandbox
	Err  error
}

func (e *CorruptError) Error() string { return fmt.Sprintf("sandbox %q: %v", e.Name, e.Err) }

// Unwrap returns what is wrong.
func (e *CorruptError) Unwrap() error { return e.Err }

// Read reads the sandboxes of the last life and checks every record (N3). What meshd
// cannot have written is a *CorruptError.
func Read(store Store) ([]Saved, error) {
	var f file
	if err := store.Load(&f); err != nil {
		return nil, err
	}
	if name, err := f.check(); err != nil {
		return nil, &CorruptError{name, err}
	}
	return f.Sandboxes, nil
}

// check refuses what meshd would not have written, with the name of the sandbox.
func (f *file) check() (name string, _ error) {
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

func (s *Saved) check() error {
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
