package main

import (
	"cmp"
	"context"
	"embed"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
)

// scripts ask "meshctl __complete WORD..." for the candidates of the last
// word, so that they never lag behind the commands.
//
//go:embed completion
var scripts embed.FS

// completeLimit is how long a completion may wait for meshd.
const completeLimit = time.Second

func completion(_ context.Context, s *session, args []string) error {
	script, err := scripts.ReadFile("completion/meshctl." + args[0])
	if err != nil {
		return &usageError{fmt.Sprintf("SHELL: %q has no completion", args[0]), "use bash, zsh or fish"}
	}
	if s.json {
		return &usageError{"-o: a script has one format", "leave it out"}
	}
	_, err = s.stdout.Write(script)
	return err
}

// complete prints the candidates for the last of the words, one per line.
func (p program) complete(ctx context.Context, words []string) {
	if len(words) == 0 {
		return
	}
	c := completer{program: p, all: commands(), last: words[len(words)-1]}
	g := &globals{socket: cmp.Or(p.getenv("MESHCTL_SOCKET"), control.DefaultSocket)}
	c.line = &commandLine{globals: g, flags: newFlags(g)}
	for _, w := range c.candidates(ctx, words[:len(words)-1]) {
		if strings.HasPrefix(w, c.last) {
			fmt.Fprintln(p.stdout, printable(w))
		}
	}
}

type completer struct {
	program
	all     []command
	line    *commandLine
	last    string
	network string // the value of --network so far
}

// candidates reads the words before the last one and returns what may follow.
func (c *completer) candidates(ctx context.Context, before []string) []string {
	open := "" // the flag that waits for its value
	for _, w := range before {
		switch {
		case open != "":
			c.value(open, w)
			open = ""
		case strings.HasPrefix(w, "-"):
			open = c.flag(w)
		case c.line.cmd == nil:
			if c.line.step(c.all, w) != nil {
				return nil
			}
			if c.line.cmd != nil {
				c.line.cmd.setup(c.line.flags)
			}
		default:
			c.line.args = append(c.line.args, w)
		}
	}
	switch {
	case open != "":
		return c.flagValues(ctx, open)
	case strings.HasPrefix(c.last, "-"):
		return c.flagNames()
	case c.line.cmd == nil:
		return nextWords(c.all, c.line.path)
	case c.line.cmd.max >= 0 && len(c.line.args) >= c.line.cmd.max:
		return c.flagNames()
	}
	return c.kind(ctx, c.line.cmd.complete)
}

// flag reads a flag and returns its name if its value is the next word.
func (c *completer) flag(word string) string {
	name, value, has := strings.Cut(strings.TrimLeft(word, "-"), "=")
	f := c.line.flags.set.Lookup(name)
	if f == nil || isSwitch(f) {
		return ""
	}
	if has {
		c.value(name, value)
		return ""
	}
	return name
}

func (c *completer) value(name, value string) {
	_ = c.line.flags.set.Set(name, value) // a wrong value only loses its effect
	if name == "network" {
		c.network = value
	}
}

func isSwitch(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func (c *completer) flagNames() (names []string) {
	c.line.flags.set.VisitAll(func(f *flag.Flag) { names = append(names, dashed(f.Name)) })
	return names
}

func (c *completer) flagValues(ctx context.Context, name string) []string {
	switch name {
	case "o", "output":
		return []string{"table", "json"}
	case "mode":
		return []string{"vip", "dnsrr"}
	case "scheduler":
		return control.Schedulers()
	case "type":
		return control.ResolveTypes()
	}
	return c.kind(ctx, name)
}

// kind returns the names of a kind, for which it asks meshd. There are none if no
// meshd answers.
func (c *completer) kind(ctx context.Context, kind string) (names []string) {
	if kind == "shell" {
		return []string{"bash", "zsh", "fish"}
	}
	client := control.Dial(c.line.globals.socket)
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, completeLimit)
	defer cancel()
	switch kind {
	case "network":
		networks, _ := client.Networks(ctx) // no candidates without an answer
		for _, n := range networks {
			names = append(names, n.Name)
		}
	case "service":
		services, _ := client.Services(ctx, c.network)
		for _, s := range services {
			names = append(names, s.Name)
		}
	case "sandbox":
		sandboxes, _ := client.Sandboxes(ctx)
		for _, s := range sandboxes {
			names = append(names, s.Name)
		}
	case "task":
		tasks, _ := client.Tasks(ctx, control.TaskFilter{Network: c.network})
		for _, t := range tasks {
			names = append(names, t.ID)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
