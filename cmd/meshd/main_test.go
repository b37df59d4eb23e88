package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What a person types wrong ends with 2, and the error is the last line, with
// nothing of Go in it.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	bad, loose := filepath.Join(dir, "bad.yaml"), filepath.Join(dir, "key")
	for path, text := range map[string]string{bad: "nodee: x\n", loose: "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"} {
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for line, says := range map[string]string{
		"--frobnicate":                   "--frobnicate is not known",
		"--nodee x":                      "did you mean node?",
		"--ttl soon":                     `--ttl: "soon"`,
		"--bind":                         "--bind: a value must follow",
		"extra":                          `unexpected argument "extra"`,
		"--config " + bad:                `line 1: "nodee" is not known; did you mean node?`,
		"--config /nowhere":              "/nowhere",
		"--config":                       "needs a FILE",
		"--config=":                      "needs a FILE",
		"--config /a --config=/b":        "give one FILE",
		"--node a --bind 10.0.0":         "bind: ",
		"--node a --bind 10.0.0.1":       "--insecure",
		"--node a --lb magic":            "lb: ",
		"--node a --key-file " + loose:   "chmod 600 " + loose,
		"--node a --domain - --insecure": "domain: ",
		"--node a!b --insecure":          "node: ",
	} {
		var stderr bytes.Buffer
		code := run(append([]string{"--data-dir", filepath.Join(dir, "data")}, strings.Fields(line)...), &stderr)
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		last := lines[len(lines)-1]
		if code != 2 || !strings.HasPrefix(last, "meshd: ") || !strings.Contains(last, says) || len(lines) > 3 {
			t.Errorf("meshd %s: exit %d\n%swant 2 and %q at the end", line, code, &stderr, says)
		}
		for _, word := range []string{"strconv", "unmarshal", "invalid value", "mesh.Config", "(S", "(G"} {
			if strings.Contains(stderr.String(), word) {
				t.Errorf("meshd %s: %q has %q in it", line, &stderr, word)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("a refused start has made the data directory")
	}
	var stderr bytes.Buffer
	if code := run([]string{"--help"}, &stderr); code != 0 || !strings.Contains(stderr.String(), "-dns-clients") || !strings.Contains(stderr.String(), "SIGHUP") {
		t.Errorf("--help: exit %d\n%s", code, &stderr)
	}
}

// safeBuffer is a log that is read while it is written.
type safeBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// SIGHUP does nothing but say so, SIGTERM ends the daemon with 0.
func TestSignals(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	var log safeBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- run([]string{"--node", "a", "--bind", "127.0.0.1:0", "--lb", "none", "--data-dir", filepath.Join(dir, "d"), "--socket", socket}, &log)
	}()
	until(t, &log, func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil && strings.Contains(log.String(), "meshd runs")
	})
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, &log, func() bool {
		return strings.Contains(log.String(), "SIGHUP: meshd reads its configuration and keys at the start only")
	})
	if !strings.Contains(log.String(), "gossip is not encrypted") {
		t.Errorf("nothing is said of gossip without a key:\n%s", log.String())
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-ended:
		if code != 0 {
			t.Errorf("exit %d\n%s", code, log.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("it does not end:\n%s", log.String())
	}
}

func until(t *testing.T, log *safeBuffer, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it does not come:\n%s", log.String())
		}
	}
}

// The unit starts meshd again after a failure, and neither after meshctl leave,
// which ends with 0, nor with a configuration that cannot work, which ends with 2.
func TestUnitRestarts(t *testing.T) {
	unit, err := os.ReadFile("../../examples/systemd/meshd.service")
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(string(unit)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
			settings[k] = v
		}
	}
	for k, v := range map[string]string{"Restart": "on-failure", "RestartPreventExitStatus": "2", "StartLimitIntervalSec": "0"} {
		if settings[k] != v {
			t.Errorf("%s=%s, want %s", k, settings[k], v)
		}
	}
}
