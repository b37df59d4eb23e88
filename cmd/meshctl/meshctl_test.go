package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/mesh/control"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain makes the test binary a meshctl for tests of the shell's side.
func TestMain(m *testing.M) {
	if os.Getenv("BE_MESHCTL") != "" {
		main()
	}
	os.Exit(m.Run())
}

// bench is a node with a socket, and meshctl beside it.
type bench struct {
	*node
	socket string
	stdin  string
	stop   context.CancelFunc
	done   chan error
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{node: newNode(), socket: filepath.Join(t.TempDir(), "s")}
	b.start(t)
	t.Cleanup(b.halt)
	return b
}

// start serves the node; halt ends that.
func (b *bench) start(t *testing.T) {
	t.Helper()
	l, err := control.Listen(b.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.stop, b.done = cancel, make(chan error, 1)
	go func() { b.done <- control.Serve(ctx, l, b.node, slog.New(slog.DiscardHandler)) }()
}

func (b *bench) halt() {
	if b.stop != nil {
		b.stop()
		<-b.done
		b.stop = nil
	}
}

type outcome struct {
	code           int
	stdout, stderr string
}

func (b *bench) env(name string) string {
	if name == "MESHCTL_SOCKET" {
		return b.socket
	}
	return ""
}

func (b *bench) program(stdout, stderr *bytes.Buffer) program {
	now := func() time.Time { return when.Add(3 * time.Minute) }
	return program{stdin: strings.NewReader(b.stdin), stdout: stdout, stderr: stderr, getenv: b.env, now: now}
}

func (b *bench) run(ctx context.Context, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	code := b.program(&stdout, &stderr).run(ctx, args)
	return outcome{code, stdout.String(), stderr.String()}
}

// golden compares an outcome with testdata/<name>.golden.
func golden(t *testing.T, name, socket string, args []string, got outcome) {
	t.Helper()
	text := "$ meshctl " + strings.Join(args, " ") + "\n" + got.stdout
	if got.stderr != "" {
		text += "-- stderr --\n" + got.stderr
	}
	text += "-- exit " + string(rune('0'+got.code)) + " --\n"
	text = strings.ReplaceAll(text, socket, "SOCKET")
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", path, d)
	}
}

// The output of every verb, as people and as programs get it.
func TestGolden(t *testing.T) {
	for name, line := range map[string]string{
		"node-ls":         "node ls",
		"node-ls-json":    "node ls -o json",
		"network-create":  "network create --subnet 10.9.0.0/16 collabnet --subnet6 fd00:9::/64",
		"network-ls":      "network ls",
		"network-inspect": "network inspect CollabNet",
		"network-rm":      "network rm collabnet",
		"task-add": "task add --network collabnet --service web --ip 10.1.0.7,fd00::7 --port http:80 --port 53/udp " +
			"--slot 3 --mode vip --alias www --hostname h --weight 7 --name c1 --vip 10.9.0.9 --scheduler wlc --ttl 2s",
		"task-add-json":   "task add --network collabnet --service web --ip 10.1.0.7 -o json",
		"task-rm":         "task rm 3f9c gone 3F9D --network collabnet",
		"task-drain":      "task drain 3f9c",
		"task-drain-json": "task drain -o=json -- 3f9c",
		"task-ls":         "task ls --all --service web",
		"service-ls":      "service ls --network collabnet",
		"service-inspect": "service inspect web --network collabnet",
		"service-set":     "service set web --network collabnet --ttl 2s --mode vip --scheduler wlc",
		"service-ps":      "service ps --network collabnet web",
		"sandbox-attach":  "sandbox attach --netns web --network collabnet --service web",
		"sandbox-detach":  "sandbox detach web.1 gone",
		"sandbox-ls":      "sandbox ls",
		"source-ls":       "source ls",
		"sandbox-ls-json": "sandbox ls -o json",
		"sandbox-inspect": "sandbox inspect web.1",
		"resolve":         "resolve web --network collabnet",
		"resolve-trace":   "resolve web --network collabnet --trace",
		"help-resolve":    "resolve --help",
		"resolve-json":    "resolve web --network collabnet -o json --type A",
		"lb-ls":           "lb ls",
		"lb-verify":       "lb verify",
		"doctor":          "doctor",
		"lb-verify-json":  "lb verify --dry-run -o json",
		"lb-verify-one":   "lb verify --sandbox web-1",
		"help-lb-verify":  "lb verify --help",
		"diff":            "diff",
		"diff-json":       "diff -o json",
		"join":            "join 192.0.2.1:7946 192.0.2.2",
		"leave":           "leave",
		"status":          "status",
		"metrics":         "metrics",
		"key-install":     "key install AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
		"key-use":         "key use 1f2e3d4c5b6a",
		"key-ls":          "key ls",
		"help":            "--help",
		"help-task":       "task --help",
		"help-task-add":   "task add --help",
		"help-watch":      "help watch",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			args := strings.Fields(line)
			golden(t, name, b.socket, args, b.run(t.Context(), args...))
		})
	}
}

// What the flags of "task add" become on the other side.
func TestTaskAddRequest(t *testing.T) {
	b := newBench(t)
	got := b.run(t.Context(), strings.Fields("task add --ip 10.1.0.7 --ip fd00::7 --network collabnet --service web "+
		"--port http:80,443 --port 53/udp --slot 3 --mode dnsrr --alias a,b --alias c --hostname h --weight 7 --name c1 "+
		"--id X1")...)
	want := `{"network":"collabnet","service":"web","id":"X1","slot":3,"ips":["10.1.0.7","fd00::7"],"ports":["http:80","443","53/udp"],"aliases":["a","b","c"],"hostname":"h","name":"c1","weight":7,"mode":"dnsrr"}`
	if b.added != want || got.code != exitDone {
		t.Errorf("got  %s\nwant %s\n%+v", b.added, want, got)
	}
}

// Every command line that is wrong: exit code 2, nothing asked of meshd, and a
// message that names the flag or argument and the fix.
func TestUsageErrors(t *testing.T) {
	const add = "task add --network n --service s --ip 10.0.0.1 "
	for line, says := range map[string]string{
		"":                                 "a command is missing|node, join",
		"task":                             "a command is missing|add, rm, drain, ls",
		"nod ls":                           `unknown command "nod"|one of: node`,
		"task destroy x":                   `unknown command "destroy"|add, rm`,
		"--sock x node ls":                 "unknown flag --sock|--socket",
		"node ls -x":                       "unknown flag -x|known flags",
		"node ls --socket":                 "--socket needs a value|--help",
		"node ls --socket=":                "--socket: the path is empty|leave the flag out",
		"-o yaml node ls":                  `-o: "yaml" is not a format|table or json`,
		"node ls x":                        `unexpected argument "x"|usage: meshctl node ls`,
		"task rm":                          "ID is missing|usage: meshctl task rm ID...",
		"task rm a.b":                      "ID: |letters",
		"task add":                         "--network: it is missing|name the network",
		"task add --network n":             "--service: it is missing|name the service",
		"task add --network n --service s": "--ip: a task needs an IP address|for example",
		"task add --network n --service s --ip 1.2": `--ip: "1.2" is not an IP address|for example`,
		"task add --network a.b":                    "--network: |without dots",
		"task add --service= ":                      "--service: it is empty|give it a value",
		add + "--ip 10.0.0.2":                       "--ip: 10.0.0.1 and 10.0.0.2|one IPv4",
		add + "--ip ,":                              `--ip: "," holds an empty value|comma`,
		add + "--port 99999":                        `--port: port "99999"|[NAME:]PORT`,
		add + "--port 80/icmp":                      "use tcp or udp|[NAME:]PORT",
		add + "--port http:":                        "port is missing|[NAME:]PORT",
		add + "--mode lb":                           `--mode: "lb"|dnsrr answers`,
		add + "--slot 0":                            `--slot: "0" is not a number from 1 to 4294967295|range`,
		add + "--weight 65536":                      `--weight: "65536" is not a number from 1 to 65535|range`,
		add + "--scheduler x":                       `--scheduler: "x" is not known|wlc`,
		add + "--vip x":                             `--vip: "x" is not an IP|for example`,
		add + "--vip 10.0.0.1 --mode dnsrr":         "--vip: a dnsrr service|mode vip",
		add + "--alias a/b":                         "--alias: |letters",
		add + "--hostname a..b":                     "--hostname: empty label|letters",
		add + "--name a/b":                          "--name: |letters",
		add + "--id a.b":                            "--id: |leave it out",
		"network create --subnet 10.0.0.0/16":       "NAME is missing|usage",
		"network create n":                          "--subnet: a network needs|10.9.0.0/16",
		"network create A_b.c --subnet 10.0.0.0/8":  "NAME: |letters",
		"network create n --subnet 10.0.0.1/16":     "--subnet: 10.0.0.1/16 has bits|10.0.0.0/16",
		"network create n --subnet 10.0.0.0/33":     `--subnet: "10.0.0.0/33" is not a CIDR|ADDRESS/LENGTH`,
		"network create n --subnet6 10.0.0.0/16":    "--subnet6: 10.0.0.0/16 is not IPv6|fd00",
		"network create n --subnet 10.0.0.0/32":     "--subnet: 10.0.0.0/32 is too small|/29",
		"service inspect web":                       "--network is missing|network ls",
		"service ps web":                            "--network is missing|network ls",
		"service ps a.b --network n":                "SERVICE: |letters",
		"task ls --service a.b":                     "--service: |letters",
		"service set web --network n":               "mode: the request changes nothing|TTL",
		"service set web --network n --ttl 1ms":     "--ttl: |1s to 1h",
		"resolve web":                               "--network: it is missing|network",
		"resolve web --network n --type MX":         "--type: |SRV",
		"watch --from x":                            `--from: "x" is not an index|number`,
		"lb ls --sandbox=":                          "--sandbox: it is empty|leave the flag out",
		"lb ls --service a.b":                       "--service: |letters",
		"lb verify --host --sandbox x":              "--host: a sandbox is named too|neither for all",
		"lb verify --sandbox a/b":                   "--sandbox: \"a/b\" cannot be|sandbox ls",
		"diff --wait soon":                          `--wait: "soon" is not a duration|10s`,
		"join":                                      "ADDR is missing|usage",
		"join 192.0.2.1:x":                          `ADDR: "192.0.2.1:x" has no port|HOST:7946`,
		"key use secret":                            "KEY: it is neither|keygen",
		"key install -":                             "KEY: stdin holds no key|pipe",
		"completion csh":                            `SHELL: "csh"|bash, zsh or fish`,
		"keygen x":                                  "unexpected argument|usage",
	} {
		b := newBench(t)
		got := b.run(t.Context(), strings.Fields(line)...)
		message, fix, _ := strings.Cut(says, "|")
		first, hint, _ := strings.Cut(got.stderr, "\nhint: ")
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(first, message) || !strings.Contains(hint, fix) {
			t.Errorf("meshctl %s: exit %d\n%s%swant exit 2, %q and the hint %q", line, got.code, got.stdout, got.stderr, message,
				fix)
		}
		if b.asked > 0 {
			t.Errorf("meshctl %s: asked meshd", line)
		}
		b.halt()
	}
}

func TestKeyNotShown(t *testing.T) {
	b := newBench(t)
	b.stdin = "hunter2\n"
	if got := b.run(t.Context(), "key", "use", "-"); got.code != exitUsage || strings.Contains(got.stderr, "hunter2") {
		t.Errorf("got %+v", got)
	}
}

func TestExitCodes(t *testing.T) {
	b := newBench(t)
	b.err = control.Refuse(control.CodeConflict, "choose another id", "task id x is in use on node b")
	got := b.run(t.Context(), "task", "ls")
	if want := (outcome{
		exitRefused, "",
		"meshctl task ls: task id x is in use on node b\nhint: choose another id\n",
	}); got != want {
		t.Errorf("refused: got %+v, want %+v", got, want)
	}
	b.halt()
	got = b.run(t.Context(), "task", "ls")
	if got.code != exitUnreachable || !strings.Contains(got.stderr, b.socket) ||
		!strings.Contains(got.stderr, "hint: is meshd running?") {
		t.Errorf("no meshd: got %+v", got)
	}
	got = b.run(t.Context(), "watch")
	if got.code != exitUnreachable {
		t.Errorf("watch without meshd: got %+v", got)
	}
	if err := os.WriteFile(b.socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got = b.run(t.Context(), "node", "ls"); got.code != exitUnreachable || !strings.Contains(got.stderr, "hint: ") {
		t.Errorf("a stale socket: got %+v", got)
	}
	other := filepath.Join(filepath.Dir(b.socket), "other")
	if got = b.run(t.Context(), "--socket", other, "node", "ls"); !strings.Contains(got.stderr, other) {
		t.Errorf("--socket beats the environment: got %+v", got)
	}
}

// Control characters in what meshd says do not reach the terminal.
func TestHostileText(t *testing.T) {
	b := newBench(t)
	b.err = control.Refuse(control.CodeRefused, "h\x07", "m\x1b[2J\u009b")
	got := b.run(t.Context(), "node", "ls")
	if strings.ContainsAny(strings.ReplaceAll(got.stderr, "\n", ""), "\x07\x1b\u009b") {
		t.Errorf("got %q", got.stderr)
	}
}

// Offline verbs need no meshd.
func TestOffline(t *testing.T) {
	b := &bench{node: newNode(), socket: "/nonexistent/s"}
	one, two := b.run(t.Context(), "keygen"), b.run(t.Context(), "keygen")
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(one.stdout))
	if err != nil || len(key) != control.KeySize || one.stdout == two.stdout || one.code != exitDone {
		t.Errorf("keygen: %q, %q, %v", one.stdout, two.stdout, err)
	}
	file := filepath.Join(t.TempDir(), "key")
	made := b.run(t.Context(), "keygen", "--out", file)
	text, err := os.ReadFile(file)
	info, _ := os.Stat(file)
	if err != nil || made.code != exitDone || len(text) != len(one.stdout) ||
		strings.Contains(made.stdout, strings.TrimSpace(string(text))) || info.Mode().Perm() != 0o600 {
		t.Errorf("keygen --out: %+v, %q, %v", made, text, err)
	}
	for path, says := range map[string]string{
		file: "was left as it is", file + "/x": "",
		filepath.Join(file+"s", "x"): "install -d -m 700",
	} {
		if got := b.run(t.Context(), "keygen", "--out", path); got.code != exitRefused ||
			!strings.Contains(got.stderr, says) {
			t.Errorf("keygen --out %s: %+v", path, got)
		}
	}
	if again, _ := os.ReadFile(file); string(again) != string(text) {
		t.Error("keygen --out changed a key that was there")
	}
	got := b.run(t.Context(), "version")
	if got.code != exitDone || !strings.HasPrefix(got.stdout, "meshctl ") ||
		!strings.Contains(got.stdout, "/nonexistent/s") {
		t.Errorf("version: %+v", got)
	}
	var v versions
	got = b.run(t.Context(), "version", "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || v.Server != nil ||
		v.Client.API != control.APIVersion || v.Error == "" {
		t.Errorf("version -o json: %+v, %v", got, err)
	}
}

func TestVersionOnline(t *testing.T) {
	b := newBench(t)
	for _, word := range []string{"version", "--version"} {
		if got := b.run(t.Context(), word); got.code != exitDone ||
			!strings.Contains(got.stdout, "meshd   v1.2.3 (0123456789ab) go1.26 linux/amd64 API v1") {
			t.Errorf("%s: got %+v", word, got)
		}
	}
}

// "diff --wait" asks until all are equal.
func TestDiffWait(t *testing.T) {
	b := newBench(t)
	b.equalAfter = 3
	if got := b.run(t.Context(), "diff", "--wait", "20s"); got.code != exitDone ||
		!strings.Contains(got.stdout, "collabnet: equal on 3 nodes") {
		t.Errorf("got %+v", got)
	}
	if b.asked != 3 {
		t.Errorf("asked %d times, want 3", b.asked)
	}
	b.equalAfter = 1000
	if got := b.run(t.Context(), "diff", "--wait", "120ms"); got.code != exitRefused ||
		!strings.Contains(got.stdout, "collabnet: c differs") {
		t.Errorf("never equal: got %+v", got)
	}
}

// Whoever listens there is not meshd.
func TestStranger(t *testing.T) {
	b := &bench{node: newNode(), socket: filepath.Join(t.TempDir(), "s")}
	l, err := control.Listen(b.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	if got := b.run(t.Context(), "status"); got.code != exitUnreachable || !strings.Contains(got.stderr, "not meshd") {
		t.Errorf("got %+v", got)
	}
}
