package ipvs

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshd/lb"
)

// insideEnv makes this test binary what runs in the container.
const insideEnv = "MESHD_TEST_IN_USER_NAMESPACE"

// A container with a user namespace of its own may not have all of IPVS: what is
// advised is of use there, whether meshd runs in it or on its host.
func TestProbeInUserNamespace(t *testing.T) {
	if os.Getenv(insideEnv) != "" {
		adviseAbout(t, "")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the host has looked, too
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := probeIPVS("", 10*time.Second); err != nil {
		t.Skipf("%v; runs in make vm", err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	ids := []syscall.SysProcIDMap{{Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, UidMappings: ids,
		GidMappings: ids,
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	adviseAbout(t, fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	_ = hold.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("in a container with a user namespace: %v", err)
	}
	t.Logf("%s", out.String())
}

// adviseAbout sets the driver up in a network namespace, or wants to be told why
// not, and what to do.
func adviseAbout(t *testing.T, netns string) {
	t.Helper()
	d, err := New(Config{NetNS: netns, Local: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err = d.Probe(t.Context()); err == nil {
		err = d.Setup(t.Context())
	}
	if err == nil {
		return // a newer kernel
	}
	text := err.Error()
	if !errors.Is(err, lb.ErrUnsupported) || strings.Contains(text, "sysctl -w") ||
		strings.Contains(text, "run as root") || !strings.Contains(text, "use lb: nft") {
		t.Errorf("%v; want what to do", err)
	}
	t.Log(text)
}
