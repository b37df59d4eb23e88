package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// N4: a daemon whose log nobody reads answers, registers and ends as any other.
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
		}, io.Discard, w)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	api := unixClient(filepath.Join(dir, "s"))
	for {
		err := call(ctx, api, http.MethodGet, "/v1/status", "")
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(call(ctx, api, http.MethodPost, "/v1/networks", `{"name": "net", "subnet": "10.96.0.0/16"}`))
	for range 50 { // each logs something
		_ = call(ctx, api, http.MethodPost, "/v1/join", `{"addresses": ["127.0.0.1:1"]}`)
	}
	must(call(ctx, api, http.MethodPost, "/v1/tasks",
		`{"network": "net", "service": "web", "ips": ["10.1.0.7"], "ports": ["80"]}`))
	must(call(ctx, api, http.MethodPost, "/v1/leave", ""))
	select {
	case code := <-ended:
		if code != 0 {
			t.Errorf("ended with %d", code)
		}
	case <-ctx.Done():
		t.Error("does not end")
	}
}

func unixClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
}

func call(ctx context.Context, api *http.Client, method, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://meshd"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := api.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return err
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
