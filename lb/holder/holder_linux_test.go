package holder_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"meshd/lb/holder"
	"meshd/test/rig"
)

// squat is the environment's variable by which this program takes the name of
// every holder, and says whether it has it.
const squat = "MESHD_TEST_SQUAT"

func TestMain(m *testing.M) {
	if os.Getenv(squat) == "" {
		os.Exit(rig.TestMain(nil, m.Run))
	}
	_, err := net.Listen("unix", "@meshd-load-balancing")
	fmt.Println(err)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

// One holds a namespace at a time, and each namespace has a holder of its own.
func TestOneHolds(t *testing.T) {
	t.Parallel()
	hosts := rig.NewTest(t, 2).Hosts()
	// A child that another test starts has this process' sockets until its program
	// begins, so that a name which is let go would be taken for that long.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	first, second, other := holder.New(hosts[0].Path()), holder.New(hosts[0].Path()), holder.New(hosts[1].Path())
	for range 2 {
		for _, h := range []*holder.Holder{first, other} {
			if err := h.Take(); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 { // asking uses nothing up
			if err := second.Take(); !errors.Is(err, holder.ErrTaken) ||
				!strings.Contains(err.Error(), fmt.Sprintf("process %d ", os.Getpid())) {
				t.Fatalf("beside the first: %v", err)
			}
		}
		if err := errors.Join(second.Release(), first.Release(), first.Release()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(second.Take(), second.Release()); err != nil {
			t.Errorf("after the first: %v", err)
		}
	}
	if err := other.Release(); err != nil {
		t.Error(err)
	}
	if err := holder.New("/nowhere").Take(); err == nil || errors.Is(err, holder.ErrTaken) {
		t.Errorf("of a namespace that is not there: %v", err)
	}
}

// Whoever may not program the kernel keeps nobody from it by taking the name.
func TestSquatter(t *testing.T) {
	t.Parallel()
	host := rig.NewTest(t, 1).Hosts()[0]
	program, err := os.Open("/proc/self/exe") // nobody may not look into its directory
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles, cmd.Env, cmd.Dir = []*os.File{program}, []string{squat + "=1"}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Do(cmd.Start); errors.Is(err, syscall.EPERM) {
		t.Skip("only root can become nobody")
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil || said != "<nil>\n" {
		t.Fatalf("it does not take the name: %q, %v", said, err)
	}
	h := holder.New(host.Path())
	if err := errors.Join(h.Take(), h.Release()); err != nil {
		t.Error(err)
	}
}
