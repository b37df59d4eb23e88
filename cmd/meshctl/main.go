// Meshctl is the command line of meshd: it calls the control API on the
// daemon's unix socket and shows the replies to people (tables) or programs
// (-o json).
//
// Rules of its output: results go to stdout, everything else to stderr; tables
// have upper-case heads and "-" for nothing; messages start in lower case, name
// the flag or the thing, and are followed by a hint that says what to do next.
//
// Exit codes: 0 done, 1 refused by meshd (or "diff" or "lb verify" found a
// difference, some node did not do what "key" asked, or what --wait waited for did
// not come), 2 usage, 3 cannot reach meshd, 130 interrupted before it was done.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"

	"meshd/mesh/control"
)

// The exit codes. Scripts rely on them; never change one.
const (
	exitDone        = 0
	exitRefused     = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitInterrupted = 130 // what a shell reports of a command that SIGINT ended
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends meshctl at once
		time.AfterFunc(interruptLimit, func() { os.Exit(exitInterrupted) })
	})
	p := program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, now: time.Now}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// interruptLimit is how long a command may go on after a signal. A command that
// blocks in a read or a write does not see the end of its context.
const interruptLimit = time.Second

// program is what one run of meshctl needs of the world.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time
}

// session is what a command needs to do its work.
type session struct {
	program
	client *control.Client
	socket string
	json   bool
}

// errNo ends a command with exit code 1 when its output says why.
var errNo = errors.New("no")

// usageError is a command line that cannot be understood.
type usageError struct{ msg, hint string }

func (e *usageError) Error() string { return e.msg }

// run executes one command line and returns the exit code.
func (p program) run(ctx context.Context, args []string) int {
	if len(args) > 0 && args[0] == "__complete" {
		p.complete(ctx, args[1:])
		return exitDone
	}
	cl, err := parse(args, p.getenv)
	if err != nil {
		return p.fail(cl.name(), "", err)
	}
	if cl.help {
		fmt.Fprint(p.stdout, cl.helpText())
		return exitDone
	}
	s := &session{program: p, client: control.Dial(cl.globals.socket), socket: cl.globals.socket, json: cl.globals.json}
	defer s.client.Close()
	if err := cl.run(ctx, s, cl.args); err != nil {
		return p.fail(cl.name(), s.socket, err)
	}
	return exitDone
}

// fail prints the error with what to do next, and returns the exit code.
func (p program) fail(name, socket string, err error) int {
	if errors.Is(err, errNo) {
		return exitRefused
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(p.stderr, "%s: interrupted; what was asked of meshd may be done all the same\n", name)
		return exitInterrupted
	}
	code, hint := exitRefused, ""
	if u, ok := errors.AsType[*usageError](err); ok {
		code, hint = exitUsage, u.hint
	} else if e, ok := errors.AsType[*control.Error](err); ok {
		hint = e.Hint
	} else if errors.Is(err, control.ErrUnreachable) {
		code, hint = exitUnreachable, reachHint(socket, err)
	}
	if hint == "" && code == exitUsage {
		hint = fmt.Sprintf("%q says more", name+" --help")
	}
	fmt.Fprintf(p.stderr, "%s: %s\n", name, printable(err.Error()))
	if hint != "" {
		fmt.Fprintf(p.stderr, "hint: %s\n", printable(hint))
	}
	return code
}

// reachHint says what to do if no daemon answers.
func reachHint(socket string, err error) string {
	_, path, scheme := strings.Cut(socket, "://")
	info, statErr := os.Stat(socket)
	switch {
	case scheme:
		return "the socket is a path, without what is before it: write --socket /" + strings.TrimLeft(path, "/")
	case statErr == nil && info.Mode().Type() != fs.ModeSocket:
		return socket + " is no socket; name that of meshd with --socket PATH or MESHCTL_SOCKET"
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("is meshd running? start it, or name its socket with --socket PATH or MESHCTL_SOCKET (tried %s)",
			socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("run as root or as a member of the group of %s", socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "meshd is not running: what it left of the socket answers nobody; start it again"
	case errors.Is(err, context.DeadlineExceeded):
		return "meshd is there but does not answer; its log says why"
	}
	return fmt.Sprintf("check that %s is the socket of a running meshd", socket)
}

// printable replaces what could control the terminal: other nodes choose their
// names and messages.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) { // control characters, and those that turn the text around
			return '?'
		}
		return r
	}, s)
}
