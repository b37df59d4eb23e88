package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nobody is a user without any power, and its group.
const nobody = 65534

// stranger is a shell of that user, root of user and mount namespaces of its own.
type stranger struct {
	t   *testing.T
	pid int
	in  io.Writer
	out *bufio.Reader
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become nobody")
	}
	cmd := exec.Command("unshare", "-Urm", "sh", "-c",
		`echo ready; while read -r line; do if eval "$line" >/dev/null 2>&1; then echo ok; else echo failed; fi; done`)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		Pdeathsig:  syscall.SIGKILL,
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("user namespaces are not available: %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s := &stranger{t: t, pid: cmd.Process.Pid, in: in, out: bufio.NewReader(out)}
	if line, err := s.out.ReadString('\n'); line != "ready\n" {
		t.Skipf("user namespaces are not available to nobody: %q, %v", line, err)
	}
	return s
}

// do runs a line of shell inside.
func (s *stranger) do(line string) {
	s.t.Helper()
	fmt.Fprintln(s.in, line)
	if answer, err := s.out.ReadString('\n'); answer != "ok\n" {
		s.t.Fatalf("%s: %q, %v", line, answer, err)
	}
}

func (s *stranger) plan() (*ResolvConf, error) {
	start, err := startTime(s.pid)
	if err != nil {
		s.t.Fatal(err)
	}
	return keeper().Plan(s.t.Context(), ProcessRoot(s.pid), start, "/etc/resolv.conf", "web")
}

// public makes a directory that everybody may enter.
func public(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Who owns a container can mount any file of the host over its resolv.conf. Of
// none of them anything is read, and nothing is written.
func TestContainerCannotReachTheHost(t *testing.T) {
	dir := public(t)
	s := newStranger(t)
	secret := filepath.Join(dir, "secret")
	for mode, text := range map[os.FileMode]string{
		0o600: "root:$6$secret:0\n", 0o644: "nameserver 192.0.2.9\n",
		0o666: "# secret\n",
	} {
		if err := os.WriteFile(secret, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(secret, mode); err != nil {
			t.Fatal(err)
		}
		s.do("mount --bind " + secret + " /etc/resolv.conf")
		if r, err := s.plan(); err == nil || len(r.Previous) > 0 || strings.Contains(err.Error(), "secret:") {
			t.Errorf("mode %o: %+v, %v", mode, r, err)
		}
		s.do("umount /etc/resolv.conf")
		if got := content(t, secret); got != text {
			t.Errorf("mode %o: the host's file is %q", mode, got)
		}
	}
}

// Between the attachment and its end the mount is another one: nothing of the
// host is overwritten, and nothing of it is in the container's file.
func TestContainerSwapsTheMount(t *testing.T) {
	dir := public(t)
	s := newStranger(t)
	secret, own := filepath.Join(dir, "secret"), filepath.Join(dir, "own")
	put(t, own, "nameserver 192.0.2.1\n")
	if err := os.Chown(own, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	s.do("mount --bind " + own + " /etc/resolv.conf")
	r, err := s.plan()
	if err != nil {
		t.Fatalf("its own file: %v", err)
	}
	r = apply(t, r)
	if got := content(t, own); got != string(r.Written) {
		t.Fatalf("its own file is %q", got)
	}
	for _, text := range []string{"root:$6$secret:0\n", string(r.Written)} {
		put(t, secret, text)
		s.do("mount --bind " + secret + " /etc/resolv.conf")
		if err := keeper().Restore(t.Context(), r); err == nil {
			t.Errorf("%q was overwritten", text)
		}
		if _, err := keeper().Apply(t.Context(), r); err == nil && text != string(r.Written) {
			t.Errorf("%q was overwritten", text)
		}
		if got := content(t, secret); got != text {
			t.Errorf("the host's file is %q", got)
		}
		s.do("umount /etc/resolv.conf")
	}
	restore(t, r)
	if got := content(t, own); got != "nameserver 192.0.2.1\n" {
		t.Errorf("its own file is %q", got)
	}
}

// A process that ended takes its file with it: a process that has its number now is
// another one.
func TestProcessIDUsedAgain(t *testing.T) {
	s := newStranger(t)
	start, err := startTime(s.pid)
	if err != nil {
		t.Fatal(err)
	}
	r, err := keeper().Plan(t.Context(), ProcessRoot(s.pid), start+1, "/etc/resolv.conf", "web")
	if err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("%+v, %v", r, err)
	}
	for _, root := range []string{"/proc/self/root", "/proc/1/../2/root", "/proc/01/root", "/proc/-1/root", "/"} {
		if r, err := keeper().Plan(t.Context(), root, 1, "/etc/resolv.conf", "web"); err == nil {
			t.Errorf("%s: %+v", root, r)
		}
	}
}
