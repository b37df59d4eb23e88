package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
		"--nodee x":                      "did you mean --node?",
		"--insecure true":                `unexpected argument "true"; --insecure stands alone, or write --insecure=true`,
		"--insecure=":                    "--insecure: it has no value",
		"--node a --insecure b c":        `unexpected argument "b"; --insecure stands alone`,
		"--node a b":                     `unexpected argument "b"; see meshd --help`,
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
		code := run(append([]string{"--data-dir", filepath.Join(dir, "data")}, strings.Fields(line)...), io.Discard, &stderr)
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
	for flag, says := range map[string][]string{"--help": {"-dns-clients", "SIGHUP"}, "--version": {"meshd "}} {
		var stdout bytes.Buffer // what was asked for, for a pager or a script
		stderr.Reset()
		code := run([]string{flag}, &stdout, &stderr)
		for _, want := range says {
			if code != 0 || !strings.Contains(stdout.String(), want) || stderr.Len() > 0 {
				t.Errorf("%s: exit %d\n%s%s\nwant %q", flag, code, &stdout, &stderr, want)
			}
		}
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.Count(line, "(default") > 1 || strings.Contains(line, "(default 0") && !strings.Contains(line, "0.") {
			t.Errorf("--help names a default twice, or none: %s", line)
		}
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

// daemon is meshd in this process.
type daemon struct {
	t      *testing.T
	dir    string // its data directory is in it, and its socket
	log    safeBuffer
	ended  chan int
	client http.Client
}

// startDaemon starts one, with more flags, and waits until it serves.
func startDaemon(t *testing.T, flags ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir(), ended: make(chan int, 1)}
	socket := filepath.Join(d.dir, "s")
	d.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	go func() {
		d.ended <- run(append([]string{
			"--node", "a", "--bind", "127.0.0.1:0", "--lb", "none", "--data-dir", d.data(),
			"--socket", socket,
		}, flags...), io.Discard, &d.log)
	}()
	until(t, &d.log, func() bool {
		return d.call(http.MethodGet, "/v1/version") == nil && strings.Contains(d.log.String(), "meshd runs")
	})
	return d
}

// get asks its API.
func (d *daemon) get(path string, to any) error {
	r, err := d.client.Get("http://meshd" + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(to)
}

// call uses its API.
func (d *daemon) call(method, path string) error {
	q, err := http.NewRequestWithContext(d.t.Context(), method, "http://meshd"+path, nil)
	if err != nil {
		return err
	}
	r, err := d.client.Do(q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return errors.New(r.Status)
	}
	return nil
}

func (d *daemon) leave() {
	d.t.Helper()
	if err := d.call(http.MethodPost, "/v1/leave"); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) data() string { return filepath.Join(d.dir, "d") }

func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		d.t.Fatal(err)
	}
}

// wantEnd waits for its end.
func (d *daemon) wantEnd(want int) {
	d.t.Helper()
	select {
	case code := <-d.ended:
		if code != want {
			d.t.Errorf("exit %d, want %d\n%s", code, want, d.log.String())
		}
	case <-time.After(20 * time.Second):
		d.t.Fatalf("it does not end:\n%s", d.log.String())
	}
}

// SIGTERM ends the daemon with 0, and it says that its gossip is open to all.
func TestSignals(t *testing.T) {
	d := startDaemon(t)
	if !strings.Contains(d.log.String(), "gossip is not encrypted") {
		t.Errorf("nothing is said of gossip without a key:\n%s", d.log.String())
	}
	d.signal(syscall.SIGTERM)
	d.wantEnd(0)
}

// SIGHUP takes over what can be changed, says what cannot, and refuses a
// configuration as the start would.
func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meshd.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("log-level: info\n")
	d := startDaemon(t, "--config", file)
	says := func(words string) {
		t.Helper()
		before := strings.Count(d.log.String(), "SIGHUP")
		d.signal(syscall.SIGHUP)
		until(t, &d.log, func() bool { return strings.Count(d.log.String(), "SIGHUP") > before })
		lines := strings.Split(strings.TrimSpace(d.log.String()), "\n")
		i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, words) })
		if i < 0 {
			t.Errorf("it does not say %q:\n%s", words, d.log.String())
		}
	}
	says("changed=[] at_the_next_start=[]")
	write("log-level: debug\njoin: 127.0.0.9:1\nmax-tasks: 5\nttl: 9s\nupstream: [10.0.0.53, corp.example=10.0.0.54]\n")
	says("changed=\"[join log-level max-tasks upstream]\" at_the_next_start=[ttl]")
	until(t, &d.log, func() bool { return strings.Contains(d.log.String(), "127.0.0.9:1") }) // it is dialled
	write("upstreem: 10.0.0.53\n")
	says("did you mean upstream?")
	write("log-level: loud\n")
	says("log-level: ")
	write("log-level: error\n")
	d.signal(syscall.SIGHUP)
	until(t, &d.log, func() bool {
		var status struct {
			Degraded []string `json:"degraded"`
		}
		return d.get("/v1/status", &status) == nil && !strings.Contains(strings.Join(status.Degraded, "\n"), "127.0.0.9")
	})
	d.signal(syscall.SIGTERM)
	d.wantEnd(0)
}

// Who leaves stays away: none of these codes makes the unit start meshd again,
// whatever the disk does.
func TestLeave(t *testing.T) {
	d := startDaemon(t)
	d.leave()
	d.wantEnd(0)
	d = startDaemon(t)
	if err := errors.Join(os.Rename(d.data(), d.data()+".gone"), os.WriteFile(d.data(), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	d.leave()
	d.wantEnd(3)
	if !strings.Contains(d.log.String(), "not everything is saved") {
		t.Errorf("it does not say that something is lost:\n%s", d.log.String())
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
// which ends with 0, or 3 (TestLeave), nor with a configuration that cannot work,
// which ends with 2.
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
	for k, v := range map[string]string{
		"Restart": "on-failure", "RestartPreventExitStatus": "2 3",
		"StartLimitIntervalSec": "0",
	} {
		if settings[k] != v {
			t.Errorf("%s=%s, want %s", k, settings[k], v)
		}
	}
}
