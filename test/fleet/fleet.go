//go:build linux

package fleet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"meshd/test/rig"
)

// Fleet is a rig whose hosts run meshd.
type Fleet struct {
	Rig     *rig.Rig
	Meshd   string // the program
	Meshctl string // the program
	LB      string // the daemons' --lb; empty is auto
	KeyFile string // the daemons' --key-file

	dir string
}

// New prepares a fleet with the programs that [Build] put into bin. The
// daemons keep their data and sockets under dir.
func New(r *rig.Rig, bin, dir string) (*Fleet, error) {
	f := &Fleet{
		Rig: r, Meshd: filepath.Join(bin, "meshd"), Meshctl: filepath.Join(bin, "meshctl"),
		KeyFile: filepath.Join(dir, "key"), dir: dir,
	}
	if _, err := exec.Command(f.Meshctl, "keygen", "--out", f.KeyFile).Output(); err != nil {
		return nil, fmt.Errorf("meshctl keygen: %w", said(err))
	}
	return f, nil
}

// said puts what a program wrote to its standard error into the error.
func said(err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}

// Tail returns the last lines of a log, for a failure's message.
func Tail(path string, lines int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
