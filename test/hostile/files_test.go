//go:build linux

package hostile

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// withOwnEtc runs the tests with a copy of the machine's /etc in its place, so that
// what changes there was changed by a daemon, and not by a person or a package.
func withOwnEtc(run func() int) func() int {
	return func() int {
		if err := coverEtc(); err != nil {
			fmt.Fprintln(os.Stderr, "hostile: a copy of /etc:", err)
			return 1
		}
		return run()
	}
}

// coverEtc covers /etc in this mount namespace, which is the tests' own.
func coverEtc() error {
	dir, err := os.MkdirTemp("", "hostile-etc-")
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	// Without root's rights over the host some of it cannot be read; the rest will do.
	out, err := exec.Command("cp", "-a", "/etc/.", dir).CombinedOutput()
	if all, _ := os.ReadDir(dir); len(all) == 0 {
		return errors.Join(fmt.Errorf("nothing was copied: %s", out), err)
	}
	if err := unix.Mount(dir, "/etc", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(dir)
}

// files are those of /etc and of the root, by size, mode and time.
type files map[string]string

// untouched: no file outside of the daemons' own is another one.
func (m *mesh) untouched() error {
	now, err := snapshot()
	if err != nil || maps.Equal(now, m.files) {
		return err
	}
	var changed []string
	for name := range now {
		if now[name] != m.files[name] {
			changed = append(changed, fmt.Sprintf("%s was %q and is %q", name, m.files[name], now[name]))
		}
	}
	for name := range m.files {
		if now[name] == "" {
			changed = append(changed, name+" is gone")
		}
	}
	slices.Sort(changed)
	return fmt.Errorf("files changed: %s", strings.Join(changed, "; "))
}

func snapshot() (files, error) {
	out := files{}
	for _, dir := range []string{"/etc", "/"} {
		all, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range all {
			if info, err := e.Info(); err == nil && (dir == "/etc" || info.Mode().IsRegular()) {
				out[filepath.Join(dir, e.Name())] = fmt.Sprint(info.Size(), info.Mode(), info.ModTime().UnixNano())
			}
		}
	}
	return out, nil
}
