package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/mesh/control"
)

// lines collects what a running meshctl prints. Safe for concurrent use.
type lines struct {
	mu   sync.Mutex // guards b
	b    bytes.Buffer
	grew chan struct{} // capacity 1
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.grew <- struct{}{}:
	default:
	}
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// until waits for text.
func (l *lines) until(t *testing.T, text string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !strings.Contains(l.String(), text) {
		select {
		case <-l.grew:
		case <-limit:
			t.Fatalf("no %q in:\n%s", text, l.String())
		}
	}
}

// watching runs "meshctl watch" until the test ends it.
func watching(t *testing.T, b *bench, args ...string) (stdout, stderr *lines, end func() int) {
	t.Helper()
	stdout, stderr = &lines{grew: make(chan struct{}, 1)}, &lines{grew: make(chan struct{}, 1)}
	p := program{stdout: stdout, stderr: stderr, getenv: b.env, now: time.Now}
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() { code <- p.run(ctx, append([]string{"watch"}, args...)) }()
	return stdout, stderr, func() int {
		cancel()
		return <-code
	}
}

func event(task string) control.Event {
	return control.Event{
		Time: when, Type: control.EventEndpointAdded, Network: "collabnet", Service: "web", Task: task,
		Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.7")}, Node: "a",
	}
}

// One line per change at once; over a restart of meshd it goes on where it
// was, with nothing lost and nothing twice.
func TestWatchResumes(t *testing.T) {
	b := newBench(t)
	stdout, stderr, end := watching(t, b)
	stdout.until(t, "TIME")
	b.events.Append(event("t1"))
	stdout.until(t, "t1")
	b.halt()
	stderr.until(t, "reconnecting")
	b.events.Append(event("t2"))
	b.start(t)
	stdout.until(t, "t2")
	b.events.Append(event("t3"))
	stdout.until(t, "t3")
	if code := end(); code != exitDone {
		t.Errorf("exit %d after an interrupt, want 0", code)
	}
	want := "endpoint-added     collabnet       web             t1              10.1.0.7                  a             -"
	if out := stdout.String(); strings.Count(out, "\n") != 4 || !strings.Contains(out, want) {
		t.Errorf("got\n%swant 4 lines, one with\n%s", out, want)
	}
	if got := stderr.String(); !strings.Contains(got, "connected again") {
		t.Errorf("stderr: %s", got)
	}
}

// Another run of meshd has other indexes: the watch says that it missed something.
func TestWatchReset(t *testing.T) {
	b := newBench(t)
	stdout, stderr, end := watching(t, b, "-o", "json")
	stdout.until(t, `"type":"start"`)
	b.events.Append(event("t1"))
	stdout.until(t, "t1")
	b.halt()
	stderr.until(t, "reconnecting")
	b.events = control.NewEventLog("boot2", 10)
	b.start(t)
	stdout.until(t, `"reset"`)
	b.events.Append(event("t2"))
	stdout.until(t, `"task":"t2"`)
	end()
	var types []string
	for line := range strings.Lines(stdout.String()) {
		var e control.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		types = append(types, string(e.Type))
	}
	if got := strings.Join(types, " "); got != "start endpoint-added reset endpoint-added" {
		t.Errorf("got %s", got)
	}
}

func TestWatchFrom(t *testing.T) {
	b := newBench(t)
	b.events.Append(event("t1"), event("t2"), event("t3"))
	stdout, _, end := watching(t, b, "--from", "1", "--network", "collabnet")
	stdout.until(t, "t3")
	end()
	if out := stdout.String(); strings.Contains(out, "t1") || !strings.Contains(out, "t2") {
		t.Errorf("got\n%s", out)
	}
}

func TestWatchRefused(t *testing.T) {
	b := newBench(t)
	b.err = control.Refuse(control.CodeNotFound, "create it", "no network x")
	if got := b.run(t.Context(), "watch", "--network", "x"); got.code != exitRefused ||
		!strings.Contains(got.stderr, "hint: create it") {
		t.Errorf("got %+v", got)
	}
}

func TestCompletion(t *testing.T) {
	b := newBench(t)
	for line, want := range map[string]string{
		"ta":                                "task",
		"task ":                             "add rm drain ls",
		"task d":                            "drain",
		"task rm ":                          "3f9c 3f9d",
		"network inspect ":                  "collabnet six",
		"network inspect collabnet ":        "--network", // no more arguments: only flags, see below
		"service ps --network collabnet ":   "web",
		"service ps --network c":            "collabnet",
		"task add --network x --mode ":      "vip dnsrr",
		"task add --sched":                  "--scheduler",
		"task add --scheduler=x --mod":      "--mode",
		"task ls --all --net":               "--network",
		"-o ":                               "table json",
		"-o json no":                        "node",
		"sandbox inspect ":                  "web.1 worker",
		"resolve web --type A":              "A AAAA ANY",
		"completion ":                       "bash zsh fish",
		"nonsense ":                         "",
		"--socket /nonexistent network rm ": "",
	} {
		words := strings.Split(line, " ")
		got := b.run(t.Context(), append([]string{"__complete"}, words...)...)
		list := strings.Join(strings.Fields(got.stdout), " ")
		if line == "network inspect collabnet " {
			want = "-o --output --socket"
		}
		if list != want || got.code != exitDone || got.stderr != "" {
			t.Errorf("%q: got %q, want %q (exit %d, stderr %q)", line, list, want, got.code, got.stderr)
		}
	}
}

// The script works in a real bash.
func TestCompletionInBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash on this machine")
	}
	b := newBench(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := `meshctl() { "$SELF" "$@"; }
source <(meshctl completion bash) || exit 1
complete -p meshctl >/dev/null || exit 1
COMP_WORDS=(meshctl service ps --network coll); COMP_CWORD=4; _meshctl
echo "${COMPREPLY[*]}"
COMP_WORDS=(meshctl task ""); COMP_CWORD=2; _meshctl
echo "${COMPREPLY[*]}"`
	cmd := exec.CommandContext(t.Context(), bash, "-c", script)
	cmd.Env = append(os.Environ(), "SELF="+self, "BE_MESHCTL=1", "MESHCTL_SOCKET="+b.socket)
	out, err := cmd.CombinedOutput()
	if want := "collabnet\nadd rm drain ls\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

// Each shell's script asks the same command.
func TestCompletionScripts(t *testing.T) {
	b := &bench{socket: "/nonexistent"}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := b.run(t.Context(), "completion", shell); got.code != exitDone ||
			!strings.Contains(got.stdout, "__complete") {
			t.Errorf("%s: %+v", shell, got)
		}
	}
}

// Every verb has a help with an example of itself.
func TestHelpOfEveryVerb(t *testing.T) {
	b := &bench{socket: "/nonexistent"}
	for _, c := range commands() {
		got := b.run(t.Context(), append(strings.Fields(c.path), "--help")...)
		if got.code != exitDone || !strings.Contains(got.stdout, "Example:\n") ||
			!strings.Contains(got.stdout, "meshctl "+c.path) && !strings.Contains(got.stdout, "meshctl completion") {
			t.Errorf("%s --help: %+v", c.path, got)
		}
	}
}
