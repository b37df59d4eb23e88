//go:build linux

package netns

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/test/rig"
)

// TestReadmeByHand runs what the README tells a newcomer to type, as it stands
// there, with pauses where a person would look and wait.
func TestReadmeByHand(t *testing.T) {
	rig.NewTest(t, 0) // skips where there are no namespaces
	for _, tool := range []string{"bash", "make", "go", "ip", "dig", "curl", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	blocks := shellBlocks(t, "../../README.md", "## Try it by hand on one machine")
	if len(blocks) != 9 {
		t.Fatalf("the README has %d blocks to type, this test knows 9: %q", len(blocks), blocks)
	}
	script := strings.Join([]string{
		"set -eu", "mount -t tmpfs none /run",
		blocks[0], blocks[1],
		wait(`[ "$(bin/meshctl --socket /tmp/mesh1.sock node ls 2>/dev/null | grep -c ' alive ')" = 3 ]`),
		blocks[2], blocks[3],
		wait(`bin/meshctl --socket /tmp/mesh3.sock network ls | grep -q collabnet`),
		blocks[4],
		wait(`[ "$(bin/meshctl --socket /tmp/mesh3.sock service ps web --network collabnet | grep -c web-)" = 3 ]`),
		"echo ---answers", blocks[5], "echo ---sandbox", blocks[6], "echo ---views", blocks[7], "echo ---end", blocks[8],
		"[ -z \"$(ip netns list)\" ]",
	}, "\n")
	script = strings.ReplaceAll(script, "/tmp/", t.TempDir()+"/") // a newcomer may be at it here as well
	out := bash(t, script)
	_, answers, _ := strings.Cut(out, "---answers\n")
	answers, inSandbox, _ := strings.Cut(answers, "---sandbox\n")
	inSandbox, views, _ := strings.Cut(inSandbox, "---views\n")
	views, _, _ = strings.Cut(views, "---end\n")
	for _, want := range []string{`(?m)^10\.96\.\d+\.\d+$`, `(?m)^10\.1\.1\.2$`, `(?m)^10\.1\.3\.2$`, `(?m)^web-1$`, `(?m)^web-2$`, `(?m)^web-3$`} {
		if !regexp.MustCompile(want).MatchString(answers) {
			t.Errorf("no line like %s in the answers:\n%s", want, answers)
		}
	}
	for _, want := range []string{`(?m)^10\.96\.\d+\.\d+$`, `(?m)^web-\d$`, `(?m)^client3 .* ready `} {
		if !regexp.MustCompile(want).MatchString(inSandbox) {
			t.Errorf("no line like %s from the sandbox:\n%s", want, inSandbox)
		}
	}
	if !strings.Contains(views, "web-2") || !strings.Contains(views, "collabnet") {
		t.Errorf("meshctl's views lack web-2 or collabnet:\n%s", views)
	}
	t.Log("\n" + answers + inSandbox + views)
}

// wait makes a shell wait until a condition holds, for at most half a minute.
func wait(condition string) string {
	return "for n in $(seq 300); do if " + condition + "; then break; fi; sleep 0.1; done; " + condition
}

// bash runs a script in the repository, with mounts of its own.
func bash(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "MESHD_RIG_DIR=", "MAKEFLAGS=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Setpgid: true}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return string(out)
}

// shellBlocks returns the sh blocks under a heading of a document.
func shellBlocks(t *testing.T, path, heading string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	_, section, ok := strings.Cut(string(text), heading+"\n")
	if !ok {
		t.Fatalf("%s has no %q", path, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}
