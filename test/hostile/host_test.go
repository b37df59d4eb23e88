//go:build linux

package hostile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hostCases are containers that reach for the host, and others who change what is
// ours in the kernel.
func hostCases() []attack {
	return []attack{
		{name: "container-mounts-a-secret", do: mountsSecret},
		{name: "container-mounts-the-hosts-names", do: func(m *mesh) error { return mounted(m, "/etc/resolv.conf", "") }},
		{name: "resolv-conf-of-passwd", do: func(m *mesh) error {
			path := m.tasks[0].Path()
			return refused(
				"sandbox attach --netns "+path+" --network collabnet --resolv-conf /etc/passwd",
				"sandbox attach --netns "+path+" --network collabnet --resolv-conf /etc/resolv.conf",
				"sandbox attach --netns "+path+" --network collabnet --resolv-conf /proc/self/root/etc/hosts",
				"sandbox attach --netns "+path+" --network collabnet --resolv-conf /etc/../etc/hostname",
			)(m)
		}},
		{name: "daemons-stopped-for-a-while", do: func(m *mesh) error {
			if err := m.nodes[1].Proc.Pause(); err != nil {
				return err
			}
			m.peer.pause(4 * time.Second)
			return m.nodes[1].Proc.Resume()
		}},
		{name: "uplink-gone-for-a-while", do: func(m *mesh) error {
			if err := m.nodes[2].Host.LinkDown("eth0"); err != nil {
				return err
			}
			m.peer.pause(3 * time.Second)
			return m.nodes[2].Host.LinkUp("eth0")
		}},
		{name: "rules-flushed", do: inHost(func(m *mesh) error {
			out, err := m.nodes[0].Host.Output("nft", "flush", "ruleset")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			_, _ = m.nodes[0].Ctl("lb", "verify")
			return nil
		})},
		{name: "routes-flushed", do: inHost(func(m *mesh) error {
			_, _ = m.nodes[0].Host.Output("ip", "route", "flush", "table", "local", "proto", "109")
			_, _ = m.nodes[0].Host.Output("ip", "route", "flush", "table", "all", "proto", "109")
			_, _ = m.nodes[0].Ctl("lb", "verify")
			return nil
		})},
		{name: "killed-again-and-again", do: func(m *mesh) error {
			n := m.nodes[1]
			for range 5 {
				n.Proc.Kill()
				if err := n.Start(m.ctx); err != nil {
					return err
				}
			}
			memory, files, err := usage(n.Proc.PID)
			m.memory[n.Proc.PID], m.open[n.Proc.PID] = memory, files
			return err
		}},
	}
}

// inHost skips what needs a tool that is not there.
func inHost(do func(m *mesh) error) func(m *mesh) error {
	return func(m *mesh) error {
		for _, tool := range []string{"nft", "ip"} {
			if _, err := exec.LookPath(tool); err != nil {
				return nil
			}
		}
		return do(m)
	}
}

// mountsSecret: the owner of a container mounts a file of the host's root over its
// resolv.conf.
func mountsSecret(m *mesh) error {
	dir, err := os.MkdirTemp("", "meshd-hostile-")
	if err != nil {
		return err
	}
	m.later(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	const text = "root:$6$secret:19000:0:99999:7:::\n"
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
		return err
	}
	return mounted(m, secret, text)
}

// mounted attaches a process in namespaces of the user nobody, in which the file of
// the host is the resolv.conf. That must be refused, and the file must not change.
func mounted(m *mesh, file, text string) error {
	const nobody = 65534
	cmd := exec.CommandContext(m.ctx, "unshare", "-Urm", "sh", "-c",
		`mount --bind "$0" /etc/resolv.conf && echo ready && exec sleep 60`, file)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := m.tasks[0].Do(cmd.Start); errors.Is(err, unix.EPERM) {
		return nil // only root can become nobody
	} else if err != nil {
		return err
	}
	m.later(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); errors.Is(err, io.EOF) && line == "" {
		return nil // no user namespaces for nobody here
	}
	said, err := m.nodes[0].Ctl("sandbox", "attach", "--pid", fmt.Sprint(cmd.Process.Pid), "--network", network,
		"--resolv-conf", "auto")
	if err == nil {
		return fmt.Errorf("attached: %s", said)
	}
	if !strings.Contains(err.Error(), "resolv.conf") {
		return err
	}
	now, err := os.ReadFile(file)
	if err == nil && text != "" && string(now) != text {
		err = fmt.Errorf("the host's file is %q", now)
	}
	return err
}
