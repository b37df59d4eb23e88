package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshd/mesh/control"
)

// What people of other tools type: exit code 2, and what they meant.
func TestMistypedLines(t *testing.T) {
	const add = "task add --network n --ip 10.0.0.1 --service "
	for line, says := range map[string]string{
		"nodes":                           `unknown command "nodes"|did you mean "meshctl node"?`,
		"Services ls":                     `unknown command "Services"|did you mean "meshctl service"?`,
		"task list":                       `unknown command "list"|did you mean "meshctl task ls"?`,
		"task delete x":                   `unknown command "delete"|did you mean "meshctl task rm"?`,
		"sandbox rm x":                    `unknown command "rm"|did you mean "meshctl sandbox detach"?`,
		"key rm x":                        `unknown command "rm"|did you mean "meshctl key remove"?`,
		"task create":                     `unknown command "create"|did you mean "meshctl task add"?`,
		"network describe x":              `unknown command "describe"|did you mean "meshctl network inspect"?`,
		"members":                         `unknown command "members"|did you mean "meshctl node"?`,
		"frobnicate":                      `unknown command "frobnicate"|one of: node`,
		"-ojson node ls":                  "unknown flag --ojson|write -o json",
		"node ls --json":                  "unknown flag --json|write -o json",
		"-v":                              "unknown flag -v|meshctl version",
		"task ls --all=maybe":             `--all: "maybe" is neither true nor false|alone`,
		"node ls --wait -1s":              `--wait: "-1s" is not a duration|10s`,
		"watch --boot zz":                 `--boot: "zz" is not a boot id|--from`,
		"keygen --out -":                  `--out: "-" would be a file|leave the flag out`,
		"key install /etc/meshd/key":      "of a file, write - < FILE|keygen",
		"resolve web:80 --network n":      `NAME: "web:80" is no name|without scheme, port`,
		"resolve http://web --network n":  `NAME: "http://web" is no name|without scheme, port`,
		"metrics -o json":                 "-o: metrics have one format|leave it out",
		"completion bash -o json":         "-o: a script has one format|leave it out",
		"resolve a..b --network n":        `NAME: "a..b" has a label without|one dot`,
		"resolve .b --network n":          `NAME: ".b" has a label without|one dot`,
		"task ls --network a --network b": `--network: there are two, "a" and "b"|give one`,
		"network create n --subnet 10.0.0.0/16 --subnet 10.1.0.0/16": `--subnet: there are two, "10.0.0.0/16" and "10.1.0.0/16"|give one`,
		"network create localhost": "NAME: \"localhost\" is the host itself|choose " +
			"another name",
		add + "80":                   `--service: "80" is taken for an address|letter`,
		add + "web --alias 10.1.1.1": `--alias: "10.1.1.1" is taken for an address|letter`,
		add + "web --hostname 10.1":  `--hostname: "10.1" is taken for an address|letter`,
		add + "web --port 80:":       `--port: port "80:": "" is not a number|[NAME:]PORT`,
		"join fd00::1:7946":          `ADDR: "fd00::1:7946" does not say|[fd00::1]:7946`,
		"join ::ffff:10.0.0.1": "ADDR: [::ffff:10.0.0.1]:7946 is an IPv4|write " +
			"10.0.0.1:7946",
		"network create é --subnet 10.0.0.1": "NAME: \"é\" has the character 'é'|letters",
	} {
		b := newBench(t)
		got := b.run(t.Context(), strings.Fields(line)...)
		message, fix, _ := strings.Cut(says, "|")
		first, hint, _ := strings.Cut(got.stderr, "\nhint: ")
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(first, message) || !strings.Contains(hint, fix) ||
			b.asked > 0 {
			t.Errorf("meshctl %s: exit %d\n%s%swant exit 2, %q and the hint %q", line, got.code, got.stdout, got.stderr, message,
				fix)
		}
		b.halt()
	}
	b := newBench(t)
	if got := b.run(t.Context(), strings.Fields(add+"web --name 4711")...); got.code != exitDone {
		t.Errorf("containers may be called by numbers: %+v", got)
	}
}

// A file that was not looked at is not found to be good.
func TestDoctorOfAnotherConfiguration(t *testing.T) {
	b := newBench(t)
	if got := b.run(t.Context(), "doctor", "--config", "/new.yaml"); !strings.Contains(got.stderr,
		"warning: /new.yaml was not read") || !strings.Contains(got.stderr, "meshd doctor --config /new.yaml") {
		t.Errorf("%+v", got)
	}
	if got := b.run(t.Context(), "doctor"); got.stderr != "" {
		t.Errorf("%+v", got)
	}
}

// What meshd refuses is told with the flag that it is about, and exit code 1.
func TestRefusalsNameFlags(t *testing.T) {
	for line, c := range map[string]struct{ message, want string }{
		"task add --network n --service s --ip 10.0.0.1":   {"ips: 10.0.0.1 is in the VIP pool", "--ip: 10.0.0.1 is in"},
		"sandbox attach --netns web --network n":           {"resolv_conf: /x: no", "--resolv-conf: /x: no"},
		"network create n --subnet 10.0.0.0/16":            {"subnet: overlaps", "--subnet: overlaps"},
		"task add --network m --service s --ip 10.0.0.1 ":  {"network: is: not one", "network: is: not one"},
		"task add --network m --service s2 --ip 10.0.0.1 ": {"no colon", "no colon"},
	} {
		b := newBench(t)
		b.err = control.Refuse(control.CodeConflict, "h", "%s", c.message)
		if got := b.run(t.Context(), strings.Fields(line)...); got.code != exitRefused ||
			!strings.Contains(got.stderr, ": "+c.want) || !strings.Contains(got.stderr, "\nhint: h") {
			t.Errorf("%s: %+v, want %q", line, got, c.want)
		}
		b.halt()
	}
}

// A node that reaches only itself has joined nobody.
func TestJoinOfItself(t *testing.T) {
	b := newBench(t)
	b.lonely = true
	for line, says := range map[string]string{
		"join 192.0.2.1":           "this one, or one of its name",
		"join 192.0.2.1 192.0.2.2": "192.0.2.2: connection refused",
	} {
		if got := b.run(t.Context(), strings.Fields(line)...); got.code != exitRefused ||
			!strings.Contains(got.stderr, "no other node answered: ") || !strings.Contains(got.stderr, says) {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

// Another server that answers everything with an empty object is no healthy node.
func TestObligingStranger(t *testing.T) {
	b := &bench{node: newNode(), socket: filepath.Join(t.TempDir(), "s")}
	l, err := control.Listen(b.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = io.WriteString(w, "{}")
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	for _, line := range []string{"status", "doctor"} {
		if got := b.run(t.Context(), line); got.code != exitUnreachable || !strings.Contains(got.stderr, "is not meshd") {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

// What is wrong with the path of a socket is said, and no daemon is made up where
// one cannot be asked.
func TestMistypedSockets(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bench{node: newNode()}
	for path, says := range map[string]string{
		"unix:///run/meshd/meshd.sock": "hint: the socket is a path, without what is before it: write --socket " +
			"/run/meshd/meshd.sock",
		dir: "hint: " + dir + " is no socket", file: "hint: " + file + " is no socket",
		filepath.Join(dir, "none"): "hint: is meshd running?",
	} {
		if got := b.run(t.Context(), "node", "ls", "--socket", path); got.code != exitUnreachable ||
			!strings.Contains(got.stderr, says) {
			t.Errorf("%s: %+v, want %q", path, got, says)
		}
	}
	if got := b.run(t.Context(), "doctor", "--socket", file+"/s"); got.code != exitUnreachable ||
		!strings.Contains(got.stderr, "cannot reach meshd") {
		t.Errorf("doctor without a way to ask: %+v", got)
	}
}
