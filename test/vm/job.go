package vm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
	"unicode/utf8"
)

// Where the first process of the machine, and its [Job], lie there.
const (
	InitPath = "/init"
	JobPath  = "/job.json"
)

// Job is what the machine does from its start until it powers off.
type Job struct {
	Hostname string   `json:"hostname"`
	Modules  []string `json:"modules"`  // files in the machine, in the order of loading
	Programs []Run    `json:"programs"` // run one after another; what they leave behind is killed
}

// Run is one program run in the machine.
type Run struct {
	Path    string        `json:"path"` // in the machine, absolute
	Args    []string      `json:"args"` // without the program's name
	Env     []string      `json:"env"`  // NAME=value; nothing is inherited
	Dir     string        `json:"dir"`  // made if it is missing
	Timeout time.Duration `json:"timeout"`
	Collect []string      `json:"collect"` // files to hand back afterwards if they are there
}

// Result is how a program ended.
type Result struct {
	Code     int           `json:"code"`     // its exit code, 128 plus a signal's number, or [CodeTimeout]
	Duration time.Duration `json:"duration"` // by the machine's clock
	Overdue  bool          `json:"overdue"`  // it took longer than its Timeout and was ended
	Error    string        `json:"error"`    // why it could not be started, or what ended it

	// Console is the kernel's last messages, with a list of all tasks, if it was
	// overdue. It does not travel with the rest.
	Console string `json:"-"`
}

// Exit codes besides those of the programs themselves.
const (
	CodeTimeout = 124 // a program took longer than its Timeout, or the machine hung
	CodeMachine = 125 // the machine or its kernel failed
	CodeNoStart = 126 // a program could not be started
)

// EncodeJob returns a job in the form that [DecodeJob] reads.
func EncodeJob(j Job) ([]byte, error) {
	if err := j.check(); err != nil {
		return nil, err
	}
	return json.MarshalIndent(j, "", "  ")
}

// DecodeJob reads a job. It refuses fields that it does not know, and orders
// that cannot be carried out.
func DecodeJob(text []byte) (Job, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var j Job
	if err := d.Decode(&j); err != nil {
		return Job{}, fmt.Errorf("read job: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Job{}, errors.New("read job: something follows it")
	}
	return j, j.check()
}

func (j Job) check() error {
	if len(j.Programs) == 0 {
		return errors.New("job: no programs to run")
	}
	for i, r := range j.Programs {
		if err := r.check(); err != nil {
			return fmt.Errorf("job: programs[%d]: %w", i, err)
		}
	}
	return nil
}

func (r Run) check() error {
	switch {
	case !path.IsAbs(r.Path):
		return fmt.Errorf("path %q is not absolute", r.Path)
	case !path.IsAbs(r.Dir):
		return fmt.Errorf("dir %q is not absolute", r.Dir)
	case r.Timeout <= 0:
		return fmt.Errorf("timeout %v must be above zero", r.Timeout)
	}
	for _, e := range r.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return fmt.Errorf("env %q: want NAME=value", e)
		}
	}
	for _, s := range append(append([]string{r.Path, r.Dir}, r.Args...), r.Env...) {
		if strings.ContainsRune(s, 0) || !utf8.ValidString(s) {
			return fmt.Errorf("%q: no zero bytes, and nothing but UTF-8", s)
		}
	}
	return nil
}
