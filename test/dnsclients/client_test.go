//go:build linux

package dnsclients

// This file owns the resolvers: how each is built, run, and read.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meshd/test/fleet"
)

// client is one resolver: a program that takes the arguments of testdata/libc.c.
type client struct {
	name    string
	command []string // filled by prepare
	lacks   string   // why it is not here
	noSRV   bool     // its interface knows addresses and names only
	prepare func(c *client, dir string) error
}

// clients are the columns of the table.
func clients() []*client {
	return []*client{
		{name: "glibc", noSRV: true, prepare: compile("cc", "libc.c")},
		{name: "musl", noSRV: true, prepare: compile("musl-gcc", "libc.c", "-static")},
		{name: "go", prepare: goProgram},
		{name: "c-ares", prepare: compile("cc", "cares.c", "-lcares")},
		{name: "node-lookup", prepare: node("lookup")},
		{name: "node-resolve", prepare: node("resolve")},
	}
}

var errMissing = errors.New("not installed")

// compile builds a program of testdata with a C compiler.
func compile(compiler, source string, flags ...string) func(*client, string) error {
	return func(c *client, dir string) error {
		if _, err := exec.LookPath(compiler); err != nil {
			return fmt.Errorf("%s: %w", compiler, errMissing)
		}
		program := filepath.Join(dir, c.name)
		args := append([]string{"-O1", "-D_GNU_SOURCE", "-o", program, filepath.Join("testdata", source)}, flags...)
		out, err := exec.Command(compiler, args...).CombinedOutput()
		if strings.Contains(string(out), "No such file or directory") && strings.Contains(string(out), ".h") {
			return fmt.Errorf("headers of %s: %w", c.name, errMissing)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w\n%s", compiler, source, err, out)
		}
		c.command = []string{program}
		return nil
	}
}

func node(how string) func(*client, string) error {
	return func(c *client, _ string) error {
		path, err := exec.LookPath("node")
		if err != nil {
			return fmt.Errorf("node: %w", errMissing)
		}
		script, err := filepath.Abs("testdata/node.js")
		c.command = []string{path, script, how}
		return err
	}
}

// goArg makes the test's own program the client of Go's resolver.
const goArg = "dns-client"

func goProgram(c *client, _ string) error {
	self, err := os.Executable()
	c.command = []string{self, goArg}
	return err
}

// goClient does in Go what testdata/libc.c does in C.
func goClient(args []string) int {
	r := &net.Resolver{PreferGo: true}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	begin := time.Now()
	lines, err := goAsk(ctx, r, args)
	took := time.Since(begin)
	if e, is := errors.AsType[*net.DNSError](err); is && e.IsNotFound {
		lines = []string{"error notfound"}
	} else if err != nil {
		lines = []string{"error again"}
	}
	fmt.Println(strings.Join(lines, "\n"))
	fmt.Println("ms", took.Milliseconds())
	return 0
}

func goAsk(ctx context.Context, r *net.Resolver, args []string) (lines []string, err error) {
	switch args[0] {
	case "lookup":
		ips, err := r.LookupIP(ctx, map[string]string{"any": "ip", "4": "ip4", "6": "ip6"}[args[1]], args[2])
		for _, ip := range ips {
			lines = append(lines, "addr "+ip.String())
		}
		return lines, err
	case "reverse":
		names, err := r.LookupAddr(ctx, args[1])
		for _, n := range names {
			lines = append(lines, "name "+n)
		}
		return lines, err
	}
	_, srvs, err := r.LookupSRV(ctx, "", "", args[1])
	for _, s := range srvs {
		lines = append(lines, "srv "+strconv.Itoa(int(s.Port)))
	}
	return lines, err
}

// prepared returns the clients with their programs; what is missing says so.
func prepared(t *testing.T) []*client {
	t.Helper()
	dir, all := t.TempDir(), clients()
	for _, c := range all {
		switch err := c.prepare(c, dir); {
		case errors.Is(err, errMissing):
			c.lacks = err.Error()
		case err != nil:
			t.Fatal(err)
		}
	}
	return all
}

// outcome is what a client made of a question.
type outcome struct {
	text string // addresses, names or ports in order, or "notfound" or "again"
	took time.Duration
}

// ask runs the client inside a task, with a resolv.conf of its own.
func (c *client) ask(t *testing.T, from *fleet.Task, resolvConf string, args []string) (o outcome) {
	t.Helper()
	dir := t.TempDir()
	var mounts strings.Builder
	for name, text := range map[string]string{"resolv.conf": resolvConf, "nsswitch.conf": "hosts: dns\n"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("/etc/" + name); err == nil {
			fmt.Fprintf(&mounts, "mount --bind %s /etc/%s && ", path, name)
		}
	}
	script := mounts.String() + `exec "$@"`
	out, err := from.Output("unshare", slices.Concat([]string{"-m", "sh", "-c", script, "sh"}, c.command, args)...)
	if err != nil {
		t.Errorf("%s %v: %v\n%s", c.name, args, err, out)
	}
	return readOutcome(string(out))
}

// readOutcome reads the lines of a client. More than eight addresses are counted.
func readOutcome(out string) (o outcome) {
	var found []string
	for line := range strings.Lines(out) {
		what, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch what {
		case "ms":
			ms, _ := strconv.Atoi(value)
			o.took = time.Duration(ms) * time.Millisecond
		case "addr", "name", "srv", "error":
			found = append(found, strings.TrimSuffix(value, "."))
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if o.text = strings.Join(found, " "); len(found) > 8 {
		o.text = fmt.Sprintf("%d addresses", len(found))
	}
	return o
}
