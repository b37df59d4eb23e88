//go:build linux

package hostile

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"meshd/test/fleet"
)

// trialCases are further daemons on a host that has one: everything that they
// are given is their own, but the kernel is not.
func trialCases() []attack {
	return []attack{
		{name: "a-trial-beside-the-daemon", do: trial},
		{name: "a-cleanup-of-nothing", do: func(m *mesh) error {
			dir, err := m.sub("cleanup")
			if err != nil {
				return err
			}
			out, err := m.nodes[0].Host.Output("sh", "-c", `exec "$@" 2>&1`, "sh", m.fleet.Meshd, "cleanup", "--data-dir",
				filepath.Join(dir, "data"), "--socket", filepath.Join(dir, "sock"))
			if err == nil || !strings.Contains(string(out), fmt.Sprintf("process %d", m.nodes[0].Proc.PID)) {
				return fmt.Errorf("beside a daemon: %w: %s", err, out)
			}
			return nil
		}},
	}
}

// trial starts a second daemon with all the defaults on a host that has one in
// service, as a person who tries meshd would. It says why it balances nothing, and
// the other one goes on, also when it restarts.
func trial(m *mesh) error {
	dir, err := m.sub("trial")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(m.ctx, m.fleet.Meshd, "--node", "trial", "--bind", "127.0.0.1:17946", "--data-dir",
		filepath.Join(dir, "data"), "--socket", filepath.Join(dir, "sock"))
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	n := m.nodes[0]
	if err := n.Host.Do(cmd.Start); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	m.later(func() { _ = cmd.Process.Kill(); <-ended })
	err = m.soon(15*time.Second, func() error {
		out, err := m.ctl(dir, "status")
		if err == nil && !strings.Contains(out, fmt.Sprintf("process %d has it", n.Proc.PID)) {
			err = errors.New("it does not say that the load balancing is another's")
		}
		if err != nil {
			err = fmt.Errorf("%w: %s %s", err, out, fleet.Tail(filepath.Join(dir, "log"), 5))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, line := range []string{
		"network create other --subnet 10.61.0.0/16",
		"task add --network other --service s --ip 10.1.1.200 --port 80",
	} {
		if out, err := m.ctl(dir, strings.Fields(line)...); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	m.peer.pause(16 * time.Second) // after that nothing makes it take what is free
	n.Proc.Kill()
	if err := n.Start(m.ctx); err != nil {
		return err
	}
	memory, files, err := usage(n.Proc.PID)
	m.memory[n.Proc.PID], m.open[n.Proc.PID] = memory, files
	m.peer.pause(2 * time.Second)
	return err
}
