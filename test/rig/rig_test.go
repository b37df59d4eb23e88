//go:build linux

package rig_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"meshd/test/rig"
)

// helperEnv makes the test program a rig that waits to be killed; see
// TestNothingSurvivesAKill.
const helperEnv = "MESHD_RIG_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		_, err := rig.Main(nil, helper)
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(rig.TestMain(nil, m.Run))
}

func helper(w rig.World) int {
	r, err := rig.New(w.Dir)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	h, err := r.AddHost("host1")
	if err == nil {
		_, err = h.Start("sleeper", "/bin/sleep", "3600")
	}
	fmt.Println("ready", err)
	select {}
}

func TestTasksReachEachOther(t *testing.T) {
	r := rig.NewTest(t, 2)
	a, b := addTask(t, r.Hosts()[0]), addTask(t, r.Hosts()[1])
	same := addTask(t, r.Hosts()[0])
	for _, to := range []*rig.Task{b, same} {
		serveName(t, to.Namespace, netip.AddrPortFrom(to.Addr, 80))
		serveName(t, to.Namespace, netip.AddrPortFrom(to.Addr6, 80))
		for _, addr := range []netip.Addr{to.Addr, to.Addr6} {
			got, err := ask(a.Namespace, netip.AddrPortFrom(addr, 80), 5*time.Second)
			if want := to.Name + " " + a.Addr.String(); addr.Is4() && got != want || err != nil {
				t.Errorf("%s asked %s: got %q, %v; want %q", a.Name, addr, got, err, want)
			}
		}
	}
}

func TestCutAndHeal(t *testing.T) {
	r := rig.NewTest(t, 3)
	h := r.Hosts()
	for _, x := range h {
		serveName(t, x.Namespace, netip.AddrPortFrom(x.Addr, 80))
	}
	reach := func(from, to int, want bool) {
		t.Helper()
		patience := 5 * time.Second
		if !want {
			patience = 200 * time.Millisecond
		}
		if _, err := ask(h[from].Namespace, netip.AddrPortFrom(h[to].Addr, 80), patience); (err == nil) != want {
			t.Errorf("host %d asks host %d: error %v, want it to work: %v", from+1, to+1, err, want)
		}
	}
	reach(0, 1, true)
	must(t, r.Cut(h[0], h[1]))
	reach(0, 1, false)
	reach(1, 0, false)
	reach(0, 2, true)
	must(t, r.Heal(h[0], h[1]))
	reach(0, 1, true)
	must(t, r.Partition(h[2]))
	reach(0, 2, false)
	reach(2, 1, false)
	reach(0, 1, true)
	must(t, r.HealAll())
	reach(2, 1, true)
	must(t, r.SetFaults(h[0], h[1], rig.Fault{Proto: rig.TCP, Loss: 100}))
	reach(0, 1, false)
	must(t, r.SetFaults(h[0], h[1], rig.Fault{Proto: rig.UDP, Loss: 100}))
	reach(0, 1, true)
}

func TestFaultsAreOneWayAndRandom(t *testing.T) {
	r := rig.NewTest(t, 2)
	a, b := r.Hosts()[0], r.Hosts()[1]
	for _, tt := range []struct {
		loss, min, max int
	}{{0, 1000, 1000}, {30, 600, 800}, {100, 0, 0}} {
		must(t, r.SetFaults(a, b, rig.Fault{Proto: rig.UDP, Loss: tt.loss}))
		if got := arriving(t, a, b, 1000); got < tt.min || got > tt.max {
			t.Errorf("loss %d%%: %d of 1000 datagrams arrived, want %d to %d", tt.loss, got, tt.min, tt.max)
		}
		if got := arriving(t, b, a, 100); got != 100 {
			t.Errorf("loss %d%% the other way: %d of 100 datagrams arrived", tt.loss, got)
		}
	}
	if err := r.SetFaults(a, b, rig.Fault{Loss: 101}); err == nil {
		t.Error("a loss of 101% was accepted")
	}
}

func TestLinkDownAndUp(t *testing.T) {
	r := rig.NewTest(t, 2)
	a, b := r.Hosts()[0], r.Hosts()[1]
	task := addTask(t, b)
	serveName(t, task.Namespace, netip.AddrPortFrom(task.Addr, 80))
	at := netip.AddrPortFrom(task.Addr, 80)
	must(t, a.LinkDown("eth0"))
	if _, err := ask(a.Namespace, at, time.Second); err == nil {
		t.Error("a host reached another with its link down")
	}
	must(t, a.LinkUp("eth0"))
	if _, err := ask(a.Namespace, at, 5*time.Second); err != nil {
		t.Errorf("after the link came back: %v", err)
	}
}

func TestProcesses(t *testing.T) {
	r := rig.NewTest(t, 1)
	h := r.Hosts()[0]
	p, err := h.Start("sleeper", "/bin/sleep", "3600")
	must(t, err)
	must(t, p.Pause())
	within(t, 5*time.Second, func() error { return inState(p, "T") })
	must(t, p.Resume())
	within(t, 5*time.Second, func() error { return inState(p, "S") })
	if err := p.Stop(5 * time.Second); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("Stop: got %v, want the signal that ended it", err)
	}
	must(t, p.Signal(0)) // harmless once it has ended
	said, err := h.Start("speaker", "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
	must(t, err)
	if err := said.Err(); err == nil {
		t.Error("exit code 3 is no error")
	}
	if log, err := os.ReadFile(said.Log); err != nil || string(log) != "out\nerr\n" {
		t.Errorf("log: got %q, %v", log, err)
	}
	if out, err := h.Output("/bin/echo", "hello"); err != nil || string(out) != "hello\n" {
		t.Errorf("Output: got %q, %v", out, err)
	}
}

// TestManyTasks adds tasks while one talks to its host: the host's address
// stays where it was.
func TestManyTasks(t *testing.T) {
	r := rig.NewTest(t, 1)
	h := r.Hosts()[0]
	first := addTask(t, h)
	at := netip.AddrPortFrom(h.Gateway, 80)
	serveName(t, h.Namespace, at)
	for range 12 {
		addTask(t, h)
		if _, err := ask(first.Namespace, at, time.Second); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRemoveTask(t *testing.T) {
	r := rig.NewTest(t, 1)
	task := addTask(t, r.Hosts()[0])
	p, err := task.Start("sleeper", "/bin/sleep", "3600")
	must(t, err)
	task.Remove()
	select {
	case <-p.Done():
	default:
		t.Error("the process of a removed task still runs")
	}
	if next := addTask(t, r.Hosts()[0]); next.Addr == task.Addr {
		t.Errorf("address %s was used again", next.Addr)
	}
}

// TestNothingSurvivesAKill kills the outer process of a rig with SIGKILL: the
// copy inside must die with it, and with it its process namespace.
func TestNothingSurvivesAKill(t *testing.T) {
	rig.NewTest(t, 0) // skips where there are no namespaces
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=1", "MESHD_RIG_DIR=", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, 64)
	n, err := out.Read(line)
	if got := string(line[:n]); got != "ready <nil>\n" || err != nil {
		t.Fatalf("helper said %q, %v", got, err)
	}
	must(t, cmd.Process.Kill())
	ended := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, out) // ends when the last process that holds the pipe has ended
		ended <- err
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the copy outlived its parent")
	}
	_ = cmd.Wait()
}

func TestUnavailableSaysWhatToDo(t *testing.T) {
	t.Setenv("MESHD_RIG_DIR", "")
	_, err := rig.New(t.TempDir())
	if !errors.Is(err, rig.ErrUnavailable) {
		t.Errorf("New outside: got %v, want ErrUnavailable", err)
	}
}

// serveName answers every connection with the namespace's name and the
// client's address.
func serveName(t *testing.T, n *rig.Namespace, at netip.AddrPort) {
	t.Helper()
	l, err := n.Listen(t.Context(), "tcp", at.String())
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = fmt.Fprintf(c, "%s %s", n.Name, host)
			_ = c.Close()
		}
	}()
}

func ask(from *rig.Namespace, at netip.AddrPort, patience time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", at.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	return string(b), err
}

// arriving sends n datagrams and counts those that arrive until it is quiet for
// a while.
func arriving(t *testing.T, from, to *rig.Host, n int) int {
	t.Helper()
	pc, err := to.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(to.Addr, 9).String())
	must(t, err)
	defer pc.Close()
	must(t, pc.(*net.UDPConn).SetReadBuffer(4<<20))
	c, err := from.Dial(t.Context(), "udp", pc.LocalAddr().String())
	must(t, err)
	defer c.Close()
	for range n {
		_, err := c.Write([]byte("x"))
		must(t, err)
	}
	got := 0
	for ; got < n; got++ {
		_ = pc.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, _, err := pc.ReadFrom(make([]byte, 8)); err != nil {
			break
		}
	}
	return got
}

func inState(p *rig.Proc, want string) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err == nil && !strings.Contains(string(stat), ") "+want+" ") {
		err = fmt.Errorf("not in state %s: %s", want, stat)
	}
	return err
}

func within(t *testing.T, d time.Duration, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	must(t, rig.Poll(ctx, check))
}

func addTask(t *testing.T, h *rig.Host) *rig.Task {
	t.Helper()
	task, err := h.AddTask(fmt.Sprintf("%s-%s", t.Name(), h.Name))
	must(t, err)
	return task
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
