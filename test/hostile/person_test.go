//go:build linux

package hostile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"meshd/test/fleet"
)

func unixDialer(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
}

// refused runs meshctl with each of the lines. None may succeed.
func refused(lines ...string) func(m *mesh) error {
	return func(m *mesh) error {
		for _, line := range lines {
			out, err := m.nodes[0].Ctl(strings.Fields(line)...)
			if err == nil {
				return fmt.Errorf("meshctl %s is taken: %s", line, out)
			}
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() < 1 {
				return fmt.Errorf("meshctl %s: %w", line, err)
			}
		}
		return nil
	}
}

// personCases are mistakes of the people who run the mesh.
func personCases() []attack {
	return []attack{
		{name: "network-over-the-hosts", do: refused(
			"network create oops --subnet 172.20.0.0/24", "network create oops --subnet 172.20.0.0/16",
			"network create oops --subnet 172.20.0.0/29", "network create oops --subnet6 fd20::/64",
		)},
		{name: "network-over-the-containers", do: refused(
			"network create oops --subnet 10.1.0.0/16", "network create oops --subnet 10.1.2.0/24",
			"network create oops --subnet 10.0.0.0/8", "network create oops --subnet6 fd21::/32",
		)},
		{name: "networks-that-cannot-be", do: refused(
			"network create oops --subnet 127.0.0.0/8", "network create oops --subnet 0.0.0.0/8",
			"network create oops --subnet 224.0.0.0/8", "network create oops --subnet 240.0.0.0/8",
			"network create oops --subnet 10.77.0.0/31",
			"network create oops --subnet6 ::/0", "network create oops --subnet6 fe80::/64",
			"network create oops --subnet6 fd00::/128", "network create oops --subnet ::1/64",
			"network create oops --subnet 10.77.0.7/16", "network create oops",
			"network create tasks --subnet 10.77.0.0/16", "network create a.b --subnet 10.77.0.0/16",
			"network create collabnet --subnet 10.78.0.0/16", "network create oops --subnet 10.96.128.0/17",
			"network rm collabnet", "network rm nowhere",
		)},
		{name: "tasks-that-cannot-be", do: refused(
			"task add", "task add --service web", "task add --network collabnet --service web --ip 127.0.0.1 --port 80",
			"task add --network collabnet --service web --ip ::1 --port 80",
			"task add --network collabnet --service web --ip 0.0.0.0 --port 80",
			"task add --network collabnet --service web --ip 10.96.0.9 --port 80",
			"task add --network collabnet --service web --ip 10.1.1.300 --port 80",
			"task add --network collabnet --service web --ip 10.1.1.77 --port 0",
			"task add --network collabnet --service web --ip 10.1.1.77 --port 70000",
			"task add --network collabnet --service web --ip 10.1.1.77 --port 80/icmp",
			"task add --network collabnet --service web --ip 10.1.1.77 --weight -1",
			"task add --network collabnet --service web --ip 10.1.1.77 --weight 70000",
			"task add --network nowhere --service web --ip 10.1.1.77",
			"task add --network collabnet --service tasks --ip 10.1.1.77",
			"task add --network collabnet --service web --ip 224.0.0.1",
			"task add --network collabnet --service web --ip fe80::1",
			"task add --network collabnet --service web --ip 10.1.1.77 --vip 10.1.1.1",
			"task add --network collabnet --service web --ip 10.1.1.77 --vip 172.20.0.2",
			"task add --network collabnet --service web --ip 10.1.1.77 --id web-host1", "task rm nobody", "task drain nobody",
			"task add --network collabnet --service web --ip 10.1.1.77 --ttl -1s",
		)},
		{name: "id-of-another-host", do: refused("task add --network collabnet --service web --ip 10.1.1.77 --id web-host2 --port 80")},
		{name: "settings-that-cannot-be", do: refused(
			"service set web --network collabnet --scheduler evil", "service set web --network collabnet --scheduler ../../x",
			"service set web --network collabnet --mode both", "service set nobody --network collabnet --mode vip",
			"service set web --network collabnet --ttl 365d", "service set web --network nowhere --mode vip",
		)},
		{name: "commands-that-are-none", do: refused(
			"", "frobnicate", "network", "network create", "task add --frob 1", "status --socket", "join", "join banana:99999",
			"join 127.0.0.1:1", "key use nokey", "key remove nokey", "sandbox attach",
			"sandbox attach --netns /etc/passwd --network collabnet", "sandbox attach --pid 1 --network collabnet",
			"lb verify nowhere extra",
		)},
		{name: "configurations-with-mistakes", do: configurations},
		{name: "keys-with-mistakes", do: keyFiles},
		{name: "a-second-daemon", do: secondDaemon},
	}
}

// ends runs meshd on the evil host, which must end with an error that says so.
func (m *mesh) ends(says string, args ...string) error {
	cmd := exec.CommandContext(m.ctx, m.fleet.Meshd, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.evil.Do(cmd.Start); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err == nil || cmd.ProcessState.ExitCode() < 1 || cmd.ProcessState.ExitCode() > 2 ||
			!strings.Contains(out.String(), says) || strings.Contains(out.String(), "goroutine ") {
			return fmt.Errorf("meshd %s: %w; it says %q, want %q", strings.Join(args, " "), err, out.String(), says)
		}
		return nil
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		<-done
		return fmt.Errorf("meshd %s goes on: %s", strings.Join(args, " "), out.String())
	}
}

// daemon is a command line for the evil host with everything that is needed.
func (m *mesh) daemon(dir string, more ...string) []string {
	return append([]string{
		"--node", "extra", "--bind", "172.20.0.4:7950", "--data-dir", filepath.Join(dir, "data"), "--socket",
		filepath.Join(dir, "sock"),
		"--key-file", m.fleet.KeyFile, "--lb", "none",
	}, more...)
}

func (m *mesh) sub(name string) (string, error) {
	dir := filepath.Join(m.dir, fmt.Sprintf("%s-%d", name, m.cases))
	return dir, os.MkdirAll(dir, 0o700)
}

func configurations(m *mesh) error {
	dir, err := m.sub("config")
	if err != nil {
		return err
	}
	for text, says := range map[string]string{
		"nodee: x\n": "nodee", "node: [a\n": "line", "\tnode: x\n": "line", "bind: 300.1.1.1\n": "bind", "node: ''\n": "node",
		"bind: 172.20.0.4:99999\n": "bind", "ttl: soon\n": "ttl", "d1: -1s\n": "d1", "preserve: 7\n": "preserve",
		"push-rate: -5\n": "push-rate", "lb: magic\n": "lb", "dns: banana\n": "dns", "profile: mars\n": "profile",
		"domain: '..'\n": "domain", "upstream: [x=y=z]\n": "upstream", "log-level: loud\n": "log-level",
		"node: x\n---\nnode: y\n": "", "- a\n": "",
		"node: x\nnode: y\n": "node", "max-tasks: 1000000000000\n": "max-tasks", "join: ['']\n": "join",
		"key-file:\n": "key-file", "dns-clients: [everybody]\n": "dns-clients",
	} {
		file := filepath.Join(dir, "meshd.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		args := append([]string{"--config", file}, m.daemon(dir)...)
		if name, _, _ := strings.Cut(text, ":"); name != "node" { // flags win: leave out what is to be wrong
			args = without(args, "--"+name)
		}
		if err := m.ends(says, args...); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
	}
	for _, args := range [][]string{
		{"--frob"},
		{"--config", "/nowhere"},
		{"--config"},
		{"start"},
		{"--ttl", "x"},
		{"cleanup", "--frob"},
		{"sandbox-file"},
	} {
		if err := m.ends("", args...); err != nil {
			return err
		}
	}
	return nil
}

func without(args []string, flag string) (out []string) {
	for i := 0; i < len(args); i++ {
		if args[i] == flag {
			i++
			continue
		}
		out = append(out, args[i])
	}
	return out
}

func keyFiles(m *mesh) error {
	dir, err := m.sub("keys")
	if err != nil {
		return err
	}
	good, err := os.ReadFile(m.fleet.KeyFile)
	if err != nil {
		return err
	}
	for i, f := range []struct {
		text string
		mode os.FileMode
	}{
		{"", 0o600},
		{"\n\n", 0o600},
		{"banana", 0o600},
		{"AAAA", 0o600},
		{string(good), 0o644},
		{string(good), 0o640},
		{string(good) + "x", 0o600},
		{strings.Repeat("A", 1<<20), 0o600},
	} {
		file := filepath.Join(dir, fmt.Sprint("key", i))
		if err := os.WriteFile(file, []byte(f.text), f.mode); err != nil {
			return err
		}
		if err := os.Chmod(file, f.mode); err != nil {
			return err
		}
		if err := m.ends("key", append(m.daemon(dir), "--key-file", file)...); err != nil {
			return err
		}
	}
	if err := m.ends("key", append(m.daemon(dir), "--key-file", dir)...); err != nil {
		return err
	}
	return m.ends("key", without(m.daemon(dir), "--key-file")...)
}

// secondDaemon starts a daemon in another one's place.
func secondDaemon(m *mesh) error {
	n := m.nodes[0]
	dir, err := m.sub("second")
	if err != nil {
		return err
	}
	for _, more := range [][]string{
		{"--data-dir", n.DataDir},
		{"--socket", n.Socket},
		{"--bind", "172.20.0.4:7946"},
		{"--bind", "172.20.0.1:7946"},
		{"--dns", "172.20.0.1:53"},
	} {
		if err := m.ends("", m.daemon(dir, more...)...); err != nil {
			return err
		}
	}
	if _, err := os.Stat(n.Socket); err != nil {
		return err
	}
	return m.nodesAnswer()
}

// single starts a daemon of its own on the evil host, outside of the mesh.
func (m *mesh) single(dir string, more ...string) (*exec.Cmd, error) {
	return m.start(dir, m.daemon(dir, more...)...)
}

// start starts it with these arguments, and waits until it answers or ends.
func (m *mesh) start(dir string, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(m.ctx, m.fleet.Meshd, args...)
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := m.evil.Do(cmd.Start); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	m.later(func() { _ = cmd.Process.Kill(); <-ended })
	for range 500 {
		if _, err := os.Stat(filepath.Join(dir, "sock")); err == nil {
			if _, err := m.ctl(dir, "status"); err == nil {
				return cmd, nil
			}
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("meshd does not start: %s", fleet.Tail(filepath.Join(dir, "log"), 5))
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil, fmt.Errorf("meshd does not start: %s", fleet.Tail(filepath.Join(dir, "log"), 5))
}

// ctl asks that daemon.
func (m *mesh) ctl(dir string, args ...string) (string, error) {
	out, err := exec.CommandContext(m.ctx, m.fleet.Meshctl, append([]string{"--socket", filepath.Join(dir, "sock")},
		args...)...).CombinedOutput()
	return string(out), err
}
