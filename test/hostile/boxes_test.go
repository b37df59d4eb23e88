//go:build linux

package hostile

import (
	"fmt"
	"os/exec"
	"strings"
)

// boxCases are containers that come and go in the middle of things.
func boxCases() []attack {
	return []attack{
		{name: "attached-again-and-again", do: attachedAgain},
		{name: "containers-that-end-at-once", do: func(m *mesh) error {
			for range 40 {
				cmd := exec.CommandContext(m.ctx, "unshare", "-n", "sleep", "0.05")
				if err := m.nodes[0].Host.Do(cmd.Start); err != nil {
					return err
				}
				_, err := m.nodes[0].Ctl("sandbox", "attach", "--pid", fmt.Sprint(cmd.Process.Pid), "--network", network)
				_ = cmd.Wait()
				if err == nil {
					return fmt.Errorf("a container without an address is attached")
				}
			}
			return nil
		}},
	}
}

// attachedAgain: whoever starts containers retries what is done already, and by
// names that are taken. Nothing of what is refused stays open.
func attachedAgain(m *mesh) error {
	n, path := m.nodes[0], m.tasks[0].Path()
	attach := func(more ...string) error {
		_, err := n.Ctl(append([]string{"sandbox", "attach", "--netns", path, "--network", network}, more...)...)
		return err
	}
	if err := attach("--name", "again"); err != nil {
		return err
	}
	for range 40 {
		for _, more := range []string{"", "--name again", "--name other", "--service web --id web-host1 --name other"} {
			if err := attach(strings.Fields(more)...); err == nil || !strings.Contains(err.Error(), "again") {
				return fmt.Errorf("attached twice: %w", err)
			}
		}
	}
	_, err := n.Ctl("sandbox", "detach", "again")
	return err
}
