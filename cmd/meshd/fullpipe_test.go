package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"meshd/mesh/control"
)

// N3: a daemon whose log nobody reads answers, registers and ends as any other.
func TestLogThatNobodyReads(t *testing.T) {
	_, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fillPipe(t, w)
	dir := t.TempDir()
	ended := make(chan int, 1)
	go func() {
		ended <- run([]string{
			"--node", "a", "--bind", "127.0.0.1:0", "--lb", "none", "--profile", "local", "--log-level", "debug",
			"--data-dir", filepath.Join(dir, "d"), "--socket", filepath.Join(dir, "s"),
		}, w)
	}()
	c := control.Dial(filepath.Join(dir, "s"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		_, err := c.Status(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil || !errors.Is(err, control.ErrUnreachable) {
			t.Fatal(err)
		}
	}
	if _, err := c.CreateNetwork(ctx, control.CreateNetwork{Name: "net", Subnet: "10.96.0.0/16"}); err != nil {
		t.Fatal(err)
	}
	for range 50 { // each logs something
		if _, err := c.Join(ctx, control.JoinRequest{Addresses: []string{"127.0.0.1:1"}}); ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.AddTask(ctx, control.AddTask{Network: "net", Service: "web", IPs: []string{"10.1.0.7"}, Ports: []string{"80"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-ended:
		if code != 0 {
			t.Errorf("ended with %d", code)
		}
	case <-ctx.Done():
		t.Error("does not end")
	}
}

// fillPipe writes to a pipe until it takes no more.
func fillPipe(t *testing.T, w *os.File) {
	t.Helper()
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	full := false
	err = raw.Control(func(fd uintptr) {
		if err = syscall.SetNonblock(int(fd), true); err != nil {
			return
		}
		for err == nil {
			_, err = syscall.Write(int(fd), make([]byte, 4096))
		}
		if full = errors.Is(err, syscall.EAGAIN); full {
			err = syscall.SetNonblock(int(fd), false)
		}
	})
	if err != nil || !full {
		t.Fatal(err)
	}
}
