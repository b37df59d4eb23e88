package control

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", info.Mode(), err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	if _, err := Listen(path); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) ||
		!strings.Contains(err.Error(), "--socket") {
		t.Errorf("a path in use: got %v", err)
	}
	_ = l.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close the socket is there: %v", err)
	}
}

// The socket of a process that was killed is replaced.
func TestListenStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = dead.Close()
	l, err := Listen(path)
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	_ = l.Close()
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a regular file: got %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file was changed: %q", b)
	}
	if _, err := Listen(filepath.Join(dir, "none", "s")); !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "directory") {
		t.Errorf("no directory: got %v", err)
	}
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(open, "s")); err == nil || !strings.Contains(err.Error(), "chmod o-w "+open) {
		t.Errorf("a directory where anybody writes: %v", err)
	}
	if err := os.Chmod(open, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if l, err := ListenFor(filepath.Join(open, "s"), os.Getgid()); err != nil {
		t.Errorf("a directory like /tmp: %v", err)
	} else {
		_ = l.Close()
	}
	if _, err := Listen("/" + strings.Repeat("x", 110)); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("a long path: got %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	_, err := Dial(filepath.Join(dir, "none")).Status(t.Context())
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: got %v", err)
	}
	for _, reply := range []string{"<html>", `{"message":"I have no code"}`, `"text"`} {
		for _, status := range []int{http.StatusOK, http.StatusTeapot} {
			l, err := net.Listen("unix", filepath.Join(dir, "s"))
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = w.Write([]byte(reply))
			})}
			go func() { _ = srv.Serve(l) }()
			_, err = Dial(filepath.Join(dir, "s")).Nodes(t.Context())
			_ = srv.Close()
			if !errors.Is(err, ErrUnreachable) {
				t.Errorf("a stranger that answers %d %s: got %v", status, reply, err)
			}
		}
	}
}

// A daemon that does not answer in time is unreachable; a caller that gives up
// gets its own reason.
func TestClientGivesUp(t *testing.T) {
	f := newFake()
	f.delay = 10 * time.Second
	c := start(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: got %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("cancelled: got %v", err)
	}
}

// Names that a client gets from elsewhere cannot reach another route.
func TestClientChecksNames(t *testing.T) {
	f := newFake()
	c := start(t, f)
	for _, name := range []string{"", "..", "../status", "a/b", "a?x=1", "%2e"} {
		if _, err := c.RemoveTask(t.Context(), TaskRef{ID: name}); !errors.Is(err, ErrInvalid) {
			t.Errorf("RemoveTask(%q): got %v", name, err)
		}
	}
	if len(f.calls) > 0 {
		t.Errorf("reached the Backend: %v", f.calls)
	}
}

// Requests in flight finish when the server stops; new ones are refused.
func TestGracefulShutdown(t *testing.T) {
	f := newFake()
	f.delay = 100 * time.Millisecond
	l, err := Listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, f, slog.New(slog.DiscardHandler)) }()
	c := Dial(l.Addr().String())
	reply := make(chan error, 1)
	go func() {
		_, err := c.Leave(t.Context())
		reply <- err
	}()
	<-f.entered // the request is in the Backend
	cancel()
	if err := <-reply; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("after the stop: got %v", err)
	}
}

func TestServeReportsListener(t *testing.T) {
	l, err := Listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := Serve(t.Context(), l, newFake(), slog.New(slog.DiscardHandler)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

// A socket whose file or directory was removed is made again. What was put in its
// place is left alone, also at the end.
func TestSocketIsMadeAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(dir, "s")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				served <- err
				return
			}
			_, _ = conn.Write([]byte("x"))
			_ = conn.Close()
		}
	}()
	answers := func() {
		t.Helper()
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if n, err := conn.Read(make([]byte, 1)); n != 1 {
			t.Fatal(err)
		}
	}
	look := func(want bool) error {
		t.Helper()
		remade, err := l.Restore()
		if remade != want {
			t.Errorf("made again: %v, %v", remade, err)
		}
		return err
	}
	answers()
	for _, gone := range []string{path, dir} {
		if err := errors.Join(look(false), os.RemoveAll(gone), look(true), look(false)); err != nil {
			t.Fatal(err)
		}
		answers()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
			t.Errorf("mode %v, %v", info, err)
		}
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("mine"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := look(false); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("something else in its place: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end Accept says %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "mine" {
		t.Errorf("what somebody else put there is %q, %v", b, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if look(false); l.Close() == nil {
		t.Error("closed twice")
	}
}
