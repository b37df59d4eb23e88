//go:build linux

package hostile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// boxCases are containers that come and go in the middle of things.
func boxCases() []attack {
	return []attack{
		{name: "attached-again-and-again", do: attachedAgain},
		{name: "attached-with-the-id-of-a-task", do: attachedAsTask},
		{name: "resolv-conf-changed-by-others", do: confChanged},
		{name: "killed-while-it-attaches", do: inHost(killedAttaching)},
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

// attachedAgain: an orchestrator repeats an attachment that is done already, and
// uses names that are taken. What is refused leaves nothing open.
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
		for _, more := range []string{"", "--name again", "--name other", "--service web --id fresh --name other"} {
			if err := attach(strings.Fields(more)...); err == nil || !strings.Contains(err.Error(), "again") {
				return fmt.Errorf("attached twice: %w", err)
			}
		}
	}
	_, err := n.Ctl("sandbox", "detach", "again")
	return err
}

// attachedAsTask attaches a container under the id of a task that is registered:
// that is refused, and the task stays.
func attachedAsTask(m *mesh) error {
	n := m.nodes[0]
	for _, where := range []string{network, network + ",elsewhere"} {
		_, err := n.Ctl("sandbox", "attach", "--netns", m.tasks[0].Path(), "--network", where, "--service", "web", "--id",
			"web-"+n.Host.Name)
		if err == nil || !strings.Contains(err.Error(), "is already a task") {
			return fmt.Errorf("the id of another task: %w", err)
		}
	}
	out, err := n.Ctl("task", "ls")
	if err == nil && !strings.Contains(out, "web-"+n.Host.Name) {
		err = fmt.Errorf("the task that had the id is gone: %s", out)
	}
	return err
}

// killedAttaching ends the daemon at different moments of an attachment: the next
// life serves the container, or has taken everything out of it again.
func killedAttaching(m *mesh) error {
	n, task := m.nodes[0], m.tasks[0]
	for i := range 12 {
		asked := make(chan struct{})
		go func() {
			_, _ = n.Ctl("sandbox", "attach", "--netns", task.Path(), "--network", network, "--name", "killed")
			close(asked)
		}()
		m.peer.pause(time.Duration(i) * 8 * time.Millisecond)
		n.Proc.Kill()
		<-asked
		if err := n.Start(m.ctx); err != nil {
			return err
		}
		_, _ = n.Ctl("sandbox", "detach", "killed")
		err := m.soon(10*time.Second, func() error {
			out, err := task.Output("nft", "list", "tables")
			if err == nil && strings.Contains(string(out), "meshd") {
				err = fmt.Errorf("left in the container are %s", out)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	memory, files, err := usage(n.Proc.PID)
	m.memory[n.Proc.PID], m.open[n.Proc.PID] = memory, files
	return err
}

// columns are what stands between two columns; how wide they are depends on the others.
var columns = regexp.MustCompile(" +")

// confChanged changes the resolv.conf of a container behind meshd's back. The
// status says so, and the end of the sandbox does not put back the former text.
func confChanged(m *mesh) error {
	n, task := m.nodes[0], m.tasks[0]
	dir, err := m.sub("conf")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "resolv.conf")
	const before = "nameserver 192.0.2.53\n"
	change := func(text string) error {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		n.Proc.Kill() // what is looked at every few minutes is looked at after a start, too
		return n.Start(m.ctx)
	}
	if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
		return err
	}
	if _, err := n.Ctl("sandbox", "attach", "--netns", task.Path(), "--network", network, "--name", "conf",
		"--resolv-conf", file); err != nil {
		return err
	}
	for _, c := range []struct{ text, file, status string }{
		{"nameserver 192.0.2.99\n", "nameserver 192.0.2.99\n", "sandbox conf: resolv.conf: " + file},
		{before, "# meshd", "Health: ok"},
	} {
		if err := change(c.text); err != nil {
			return err
		}
		err := m.soon(10*time.Second, func() error {
			out, err := n.Ctl("status")
			out = columns.ReplaceAllString(out, " ")
			text, _ := os.ReadFile(file)
			if err == nil && (!strings.Contains(out, c.status) || !strings.HasPrefix(string(text), c.file)) {
				err = fmt.Errorf("after %q the file is %q, and status says %s", c.text, text, out)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	memory, files, err := usage(n.Proc.PID)
	m.memory[n.Proc.PID], m.open[n.Proc.PID] = memory, files
	if _, detach := n.Ctl("sandbox", "detach", "conf"); detach != nil {
		return detach
	}
	if text, _ := os.ReadFile(file); string(text) != before {
		return fmt.Errorf("after all the file is %q", text)
	}
	return err
}
