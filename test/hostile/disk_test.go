//go:build linux

package hostile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// diskCases are data directories that are not as a daemon left them. Each has a
// daemon of its own.
func diskCases() []attack {
	out := []attack{
		{name: "data-directory-removed", do: alone(func(m *mesh, dir string) error {
			for range 100 { // the daemon may write just then
				err := os.RemoveAll(filepath.Join(dir, "data"))
				if err == nil {
					break
				}
				if !errors.Is(err, unix.ENOTEMPTY) {
					return err
				}
			}
			return m.saysDegraded(dir)
		})},
		{name: "data-directory-read-only", do: onDisk(func(m *mesh, dir string) error {
			data := filepath.Join(dir, "data")
			if err := unix.Mount(data, data, "", unix.MS_BIND, ""); err != nil {
				return err
			}
			m.later(func() { _ = unix.Unmount(data, unix.MNT_DETACH) })
			if err := unix.Mount("", data, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				return err
			}
			return m.saysDegraded(dir)
		})},
		{name: "disk-full", do: onDisk(func(m *mesh, dir string) error {
			f, err := os.Create(filepath.Join(dir, "data", "filler"))
			if err != nil {
				return err
			}
			defer f.Close()
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
			if !errors.Is(err, unix.ENOSPC) {
				return err
			}
			return m.saysDegraded(dir)
		})},
		{name: "directory-of-another-node", do: stopped(func(m *mesh, dir string) error {
			return m.ends("another", m.daemon(dir, "--node", "other")...)
		})},
	}
	for _, file := range []string{"node.json", "tasks.json", "peers.json", "peers.log", "keys.json", "sandboxes.json"} {
		out = append(out, attack{
			name: "damaged-" + strings.TrimSuffix(strings.ReplaceAll(file, ".log", "-log"), ".json"),
			do:   stopped(func(m *mesh, dir string) error { return m.damaged(dir, file) }),
		})
	}
	return append(out,
		attack{name: "numbers-of-another-world", do: stopped(otherWorld)},
		attack{name: "files-that-are-none", do: stopped(noFiles)},
	)
}

// alone gives a case a running daemon.
func alone(do func(m *mesh, dir string) error) func(m *mesh) error {
	return func(m *mesh) error {
		dir, err := m.sub("alone")
		if err != nil {
			return err
		}
		if _, err := m.single(dir); err != nil {
			return err
		}
		if out, err := m.ctl(dir, "network", "create", "n", "--subnet", "10.60.0.0/16"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if out, err := m.ctl(dir, "task", "add", "--network", "n", "--service", "s", "--id", "first", "--ip", "10.1.4.9",
			"--port", "80"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return do(m, dir)
	}
}

// onDisk gives it a data directory on a small disk.
func onDisk(do func(m *mesh, dir string) error) func(m *mesh) error {
	return func(m *mesh) error {
		dir, err := m.sub("alone")
		if err != nil {
			return err
		}
		data := filepath.Join(dir, "data")
		if err := os.MkdirAll(data, 0o700); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", data, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
			return err
		}
		m.later(func() { _ = unix.Unmount(data, unix.MNT_DETACH) })
		return alone(do)(m)
	}
}

// stopped gives it a data directory whose daemon was killed.
func stopped(do func(m *mesh, dir string) error) func(m *mesh) error {
	return alone(func(m *mesh, dir string) error {
		for _, f := range m.closes { // kills it
			f()
		}
		m.closes = nil
		return do(m, dir)
	})
}

// saysDegraded: the daemon refuses to register what it cannot keep, answers, and
// says what is wrong.
func (m *mesh) saysDegraded(dir string) error {
	refused := ""
	for i := range 20 { // a small disk may hold some more
		out, err := m.ctl(dir, "task", "add", "--network", "n", "--service", "s", "--id", fmt.Sprint("more", i), "--ip",
			fmt.Sprintf("10.1.4.%d", i+10), "--port", "80", "--hostname", strings.Repeat("x", 60))
		if refused = out; err != nil && !strings.Contains(out, "data") && !strings.Contains(out, "disk") &&
			!strings.Contains(out, "space") {
			return fmt.Errorf("the refusal does not tell why: %s", out)
		}
	}
	last := ""
	for range 300 {
		out, err := m.ctl(dir, "status")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if last = out; !strings.Contains(columns.ReplaceAllString(out, " "), "Health: ok") &&
			strings.Contains(out, "egraded") {
			return nil
		}
		m.peer.pause(50 * time.Millisecond)
	}
	return fmt.Errorf("status is well: %s, and a task was answered with %q", last, refused)
}

// damaged writes each kind of damage to a file: the daemon refuses to start and
// names the file, or starts and serves.
func (m *mesh) damaged(dir, file string) error {
	path := filepath.Join(dir, "data", file)
	was, _ := os.ReadFile(path)
	for _, text := range []string{
		"", "{", "null", "[]", "\x00\x00\x00\x00", string(was[:len(was)/2]), strings.ReplaceAll(string(was), ":", ";"),
		`{"version":999999999999999999999}`, strings.Repeat("[", 100000),
		`{"sandboxes":[{}],"networks":{"":{}},"keys":["x"],"peers":[{"name":""}],"node":""}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		if err := m.startsOrSays(dir, file); err != nil {
			return fmt.Errorf("%s is %.60q: %w", file, text, err)
		}
		if was == nil {
			_ = os.Remove(path)
		} else if err := os.WriteFile(path, was, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// startsOrSays starts a daemon.
func (m *mesh) startsOrSays(dir, says string) error {
	_ = os.Remove(filepath.Join(dir, "log"))
	cmd, err := m.single(dir)
	defer func() {
		for _, f := range m.closes {
			f()
		}
		m.closes = nil
	}()
	if err == nil {
		_, err = m.ctl(dir, "network", "ls")
		return errors.Join(err, cmd.Process.Kill())
	}
	text, _ := os.ReadFile(filepath.Join(dir, "log"))
	if !strings.Contains(strings.ToLower(string(text)), says) && !strings.Contains(string(text), dir) ||
		strings.Contains(string(text), "goroutine ") {
		return fmt.Errorf("it neither starts nor says why: %.400s", text)
	}
	return nil
}

// otherWorld puts numbers into the files that no honest life gets to.
func otherWorld(m *mesh, dir string) error {
	for _, number := range []string{
		"4611686018427387904", "9223372036854775807", "18446744073709551615", "0", "-1",
		"1e18",
	} {
		for _, field := range []string{"incarnation", "lamport"} {
			path := filepath.Join(dir, "data", "node.json")
			was, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(path, []byte(setNumber(string(was), field, number)), 0o600); err != nil {
				return err
			}
			if err := m.startsOrSays(dir, field); err != nil {
				return fmt.Errorf("%s %s: %w", field, number, err)
			}
			if err := os.WriteFile(path, was, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// setNumber replaces the number of a field of JSON.
func setNumber(text, field, number string) string {
	before, after, ok := strings.Cut(text, `"`+field+`":`)
	if !ok {
		return strings.Replace(text, "{", `{"`+field+`": `+number+`,`, 1)
	}
	end := strings.IndexAny(after, ",}\n")
	return before + `"` + field + `": ` + number + after[end:]
}

// noFiles puts directories, links and pipes in the files' places.
func noFiles(m *mesh, dir string) error {
	for _, file := range []string{"node.json", "tasks.json", "peers.json", "peers.log", "sandboxes.json"} {
		path := filepath.Join(dir, "data", file)
		was, _ := os.ReadFile(path)
		for _, make := range []func() error{
			func() error { return os.Mkdir(path, 0o700) },
			func() error { return os.Symlink("/etc/passwd", path) },
			func() error { return os.Symlink(file, path) },
		} {
			_ = os.RemoveAll(path)
			if err := make(); err != nil {
				return err
			}
			if err := m.startsOrSays(dir, file); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			_ = os.RemoveAll(path)
			if was != nil {
				if err := os.WriteFile(path, was, 0o600); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
