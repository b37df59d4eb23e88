package sandbox

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"meshd/test/rig"
)

// TestMain runs the tests inside a rig; a fuzz target needs none, and its
// workers could not be reached there. The test binary also is what a Keeper runs.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == KeeperCommand {
		os.Exit(ServeKeeper(os.Stdin, os.Stdout))
	}
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(m.Run())
	}
	os.Exit(rig.TestMain(nil, m.Run))
}

// container makes a namespace with addresses.
func container(t *testing.T) *rig.Task {
	t.Helper()
	r := rig.NewTest(t, 1)
	task, err := r.Hosts()[0].AddTask("container")
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func open(t *testing.T, target Target) *Namespace {
	t.Helper()
	n, err := Open(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func TestOpenRefusals(t *testing.T) {
	task := container(t)
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe") // to open it for reading would block
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		target Target
		want   error
	}{
		{Target{Path: filepath.Join(dir, "none")}, fs.ErrNotExist},
		{Target{Path: pipe}, ErrNotNamespace},
		{Target{Path: dir}, ErrNotNamespace},
		{Target{Path: "/dev/null"}, ErrNotNamespace},
		{Target{Path: "/proc/self/ns/mnt"}, ErrNotNamespace},
		{Target{Path: "/proc/self/ns/net"}, ErrOwn},
		{Target{PID: os.Getpid()}, ErrOwn},
		{Target{PID: 1 << 22}, fs.ErrNotExist},
	} {
		if n, err := Open(tt.target); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.target, n, err, tt.want)
		}
	}
	if err := task.Do(func() error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// The same namespace has the same identity by path and by process; two differ.
func TestIdentity(t *testing.T) {
	task, other := container(t), container(t)
	p, err := task.Start("sleep", "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	byPath, byPID, another := open(t, Target{Path: task.Path()}).Identity(), open(t, Target{PID: p.PID}).Identity(),
		open(t, Target{Path: other.Path()}).Identity()
	if byPID.Start == 0 || byPath.Cookie == 0 || byPath.Boot == "" {
		t.Errorf("identities %+v, %+v", byPath, byPID)
	}
	byPID.Start = 0
	if byPath != byPID || byPath == another || byPath.Cookie == another.Cookie {
		t.Errorf("by path %+v, by process %+v, another %+v", byPath, byPID, another)
	}
	addrs, err := open(t, Target{Path: task.Path()}).Addrs()
	if want := []netip.Addr{task.Addr, task.Addr6}; err != nil || fmt.Sprint(addrs) != fmt.Sprint(want) {
		t.Errorf("addresses %v, %v; want %v", addrs, err, want)
	}
}

// The end of a process is noticed at once, that of a path by asking.
func TestGone(t *testing.T) {
	task := container(t)
	p, err := task.Start("sleep", "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	byPath, byPID := open(t, Target{Path: task.Path()}), open(t, Target{PID: p.PID})
	if err := errors.Join(byPath.Gone(), byPID.Gone()); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	select {
	case <-byPID.Died():
	case <-time.After(10 * time.Second):
		t.Error("no notice of the end of the process")
	}
	if err := byPID.Gone(); !errors.Is(err, ErrGone) {
		t.Errorf("after the end of the process: %v", err)
	}
	if byPath.Died() != nil {
		t.Error("a path has a process")
	}
	task.Remove()
	if err := byPath.Gone(); !errors.Is(err, ErrGone) {
		t.Errorf("after the end of the path: %v", err)
	}
}

// The sockets are inside, port 53 leads to them, and an earlier port is taken again.
func TestListen(t *testing.T) {
	task := container(t)
	if err := task.LinkDown("lo"); err != nil {
		t.Fatal(err)
	}
	n := open(t, Target{Path: task.Path()})
	s, err := n.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Redirected || s.Port == 53 {
		t.Fatalf("sockets %+v", s)
	}
	if ok, err := n.Redirected(s.Port); !ok || err != nil {
		t.Errorf("redirected: %v, %v", ok, err)
	}
	if ok, _ := n.Redirected(s.Port + 1); ok {
		t.Error("another port is redirected to as well")
	}
	echo(t, s)
	reaches(t, task)
	port := s.Port
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = n.Listen(port); err != nil || s.Port != port {
		t.Fatalf("on port %d again: %+v, %v", port, s, err)
	}
	echo(t, s)
	reaches(t, task)
	second, err := n.Listen(port) // taken: any other
	if err != nil || second.Port == port {
		t.Fatalf("on a port that is taken: %+v, %v", second, err)
	}
	if err := errors.Join(s.Close(), second.Close(), n.RemoveRedirect(), n.RemoveRedirect()); err != nil {
		t.Error(err)
	}
	if ok, err := n.Redirected(second.Port); ok || err != nil {
		t.Errorf("after the removal: %v, %v", ok, err)
	}
}

// Without nftables the name server is on port 53 itself; a container's own
// server on every address then stands in its way, and the error says so.
func TestListenWithoutRedirect(t *testing.T) {
	task := container(t)
	n := open(t, Target{Path: task.Path()})
	n.redirect = func(uint16) error { return fmt.Errorf("%w (test)", errNoRedirect) }
	s, err := n.Listen(0)
	if err != nil || s.Redirected || s.Port != 53 {
		t.Fatalf("sockets %+v, %v", s, err)
	}
	echo(t, s)
	reaches(t, task)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	own, err := task.ListenPacket(t.Context(), "udp4", "0.0.0.0:53")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if s, err := n.Listen(0); !errors.Is(err, errNoRedirect) || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("beside the container's own server: %+v, %v", s, err)
	}
}

// echo serves until the sockets are closed.
func echo(t *testing.T, s *Sockets) {
	t.Helper()
	go func() {
		b := make([]byte, 64)
		for {
			k, from, err := s.Packet.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = s.Packet.WriteTo(b[:k], from)
		}
	}()
	go func() {
		for {
			c, err := s.Stream.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 64)
			if k, err := c.Read(b); err == nil {
				_, _ = c.Write(b[:k])
			}
			_ = c.Close()
		}
	}()
}

// reaches asks 127.0.0.11:53 inside, over UDP and TCP. A connected UDP socket
// takes a reply from that address only.
func reaches(t *testing.T, task *rig.Task) {
	t.Helper()
	for _, proto := range []string{"udp", "tcp"} {
		c, err := task.Dial(t.Context(), proto, ServerAddr.String())
		if err != nil {
			t.Errorf("%s: %v", proto, err)
			continue
		}
		if got, err := roundTrip(c); err != nil || got != "word" {
			t.Errorf("%s: got %q, %v", proto, got, err)
		}
		_ = c.Close()
	}
}

func roundTrip(c net.Conn) (string, error) {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("word")); err != nil {
		return "", err
	}
	b := make([]byte, 64)
	k, err := c.Read(b)
	return string(b[:k]), err
}
