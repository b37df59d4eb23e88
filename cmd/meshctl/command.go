package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"meshd/mesh/control"
)

// action does a command's work. args are the positional arguments.
type action func(ctx context.Context, s *session, args []string) error

// command is one verb.
type command struct {
	// What the user writes.

	path     string // the words, such as "task add"
	args     string // the positional arguments, for people
	min, max int    // how many arguments it takes; max -1 is any number
	complete string // the kind of the arguments, for completion: see completer.kind

	// What the help says.

	short   string // one line, lower case, no period
	long    string // more lines; may be empty
	example string // command lines that work, one per line

	// setup binds the flags and returns the work.
	setup func(f *flags) action
}

// commands returns all verbs in the order of the help.
func commands() []command {
	return slices.Concat(nodeCommands(), networkCommands(), taskCommands(), serviceCommands(),
		sandboxCommands(), sourceCommands(), viewCommands(), lbCommands(), keyCommands(), localCommands())
}

// globals are the flags that every command has.
type globals struct {
	socket string
	json   bool
}

// commandLine is a parsed command line.
type commandLine struct {
	path    string // the words of the command so far
	cmd     *command
	flags   *flags
	globals *globals
	help    bool
	args    []string
	run     action
}

func (c *commandLine) name() string { return strings.TrimSpace("meshctl " + c.path) }

// parse reads a command line, in which flags may stand anywhere. The result is
// valid with an error, too: it says which command the error is about.
func parse(args []string, getenv func(string) string) (*commandLine, error) {
	g := &globals{socket: cmp.Or(getenv("MESHCTL_SOCKET"), control.DefaultSocket)}
	cl := &commandLine{globals: g, flags: newFlags(g)}
	all := commands()
	if len(args) > 0 && (args[0] == "--version" || args[0] == "-version") {
		args = slices.Concat([]string{"version"}, args[1:])
	}
	for cl.cmd == nil {
		rest, _, err := cl.flags.parse(args)
		if errors.Is(err, flag.ErrHelp) {
			cl.help = true
			return cl, nil
		}
		if err != nil {
			return cl, err
		}
		if len(rest) == 0 {
			return cl, cl.incomplete(all)
		}
		args = rest[1:]
		if rest[0] == "help" {
			cl.help = true
			continue
		}
		if err := cl.step(all, rest[0]); err != nil {
			return cl, err
		}
	}
	return cl, cl.parseCommand(args)
}

// step takes one word of the command's path.
func (c *commandLine) step(all []command, word string) error {
	path := strings.TrimSpace(c.path + " " + word)
	for i := range all {
		if all[i].path == path {
			c.path, c.cmd = path, &all[i]
			return nil
		}
	}
	for i := range all {
		if strings.HasPrefix(all[i].path, path+" ") {
			c.path = path
			return nil
		}
	}
	hint := c.knownWords(all)
	if likely := suggestWord(word, nextWords(all, c.path)); likely != "" {
		hint = fmt.Sprintf("did you mean %q? %s", c.name()+" "+likely, hint)
	}
	return &usageError{fmt.Sprintf("unknown command %q", word), hint}
}

func (c *commandLine) incomplete(all []command) error {
	if c.help {
		return nil
	}
	return &usageError{"a command is missing", c.knownWords(all)}
}

// knownWords says which words may follow the path.
func (c *commandLine) knownWords(all []command) string {
	return fmt.Sprintf("one of: %s; %q says more", strings.Join(nextWords(all, c.path), ", "), c.name()+" --help")
}

// nextWords returns the words that may follow path, in the order of the help.
func nextWords(all []command, path string) (words []string) {
	for _, cmd := range all {
		rest, ok := strings.CutPrefix(cmd.path, strings.TrimLeft(path+" ", " "))
		if !ok {
			continue
		}
		word, _, _ := strings.Cut(rest, " ")
		if !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return words
}

// parseCommand parses what follows the path of a known command.
func (c *commandLine) parseCommand(args []string) error {
	c.run = c.cmd.setup(c.flags)
	c.flags.noArguments = c.cmd.max == 0
	for {
		rest, only, err := c.flags.parse(args)
		if errors.Is(err, flag.ErrHelp) {
			c.help = true
			return nil
		}
		if err != nil {
			return err
		}
		if only || len(rest) == 0 {
			c.args = append(c.args, rest...)
			break
		}
		c.args, args = append(c.args, rest[0]), rest[1:]
	}
	if c.help {
		return nil
	}
	return c.checkArgs()
}

func (c *commandLine) checkArgs() error {
	hint := fmt.Sprintf("usage: meshctl %s", c.cmd.synopsis())
	switch n := len(c.args); {
	case n < c.cmd.min:
		return &usageError{strings.TrimSuffix(strings.Fields(c.cmd.args)[n], "...") + " is missing", hint}
	case c.cmd.max >= 0 && n > c.cmd.max:
		return &usageError{fmt.Sprintf("unexpected argument %q", c.args[c.cmd.max]), hint}
	}
	if slices.Contains(c.args, "") {
		return &usageError{"an argument is empty", hint}
	}
	return nil
}

func (c *command) synopsis() string { return strings.TrimSpace(c.path + " " + c.args) }

// flags is a flag set whose errors name the flag and the fix.
type flags struct {
	set         *flag.FlagSet
	bad         error // what the last function of value returned
	noArguments bool  // the command takes no positional arguments
}

func newFlags(g *globals) *flags {
	f := &flags{set: flag.NewFlagSet("meshctl", flag.ContinueOnError)}
	f.set.SetOutput(io.Discard)
	f.set.Usage = func() {}
	f.value("socket", "the control socket of meshd, a `PATH` (default "+control.DefaultSocket+", env MESHCTL_SOCKET)",
		func(s string) error {
			if s == "" {
				return &usageError{"the path is empty", "leave the flag out for " + control.DefaultSocket}
			}
			g.socket = s
			return nil
		})
	output := func(s string) error {
		if s != "table" && s != "json" {
			return &usageError{fmt.Sprintf("%q is not a format", s), "use table or json"}
		}
		g.json = s == "json"
		return nil
	}
	f.value("o", "output `FORMAT`: table or json", output)
	f.value("output", "the same as -o", output)
	return f
}

// parse parses flags up to the first other argument and returns what follows.
// only reports that "--" was there: what follows holds no flags.
func (f *flags) parse(args []string) (rest []string, only bool, err error) {
	f.bad = nil
	args = joinWait(args, f.noArguments)
	err = f.set.Parse(args)
	rest = f.set.Args()
	if taken := len(args) - len(rest); taken > 0 && args[taken-1] == "--" {
		only = true
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return rest, only, err
	}
	if f.bad != nil {
		return nil, false, f.bad
	}
	msg := err.Error()
	if name, ok := strings.CutPrefix(msg, "flag provided but not defined: -"); ok {
		name = strings.TrimLeft(name, "-")
		return nil, false, &usageError{"unknown flag " + dashed(name), cmp.Or(suggestFlag(name), f.known())}
	}
	if err := notBool(msg); err != nil {
		return nil, false, err
	}
	if name, ok := strings.CutPrefix(msg, "flag needs an argument: -"); ok {
		return nil, false, &usageError{dashed(name) + " needs a value", ""}
	}
	return nil, false, &usageError{msg, ""}
}

// known lists the flags, for hints.
func (f *flags) known() string {
	var names []string
	f.set.VisitAll(func(fl *flag.Flag) { names = append(names, dashed(fl.Name)) })
	return "known flags: " + strings.Join(names, " ")
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// value binds a flag to a function, whose error gets the flag's name.
func (f *flags) value(name, usage string, parse func(string) error) {
	f.set.Func(name, usage, func(s string) error {
		err := parse(s)
		if err == nil {
			return nil
		}
		hint := ""
		if u, ok := errors.AsType[*usageError](err); ok {
			hint = u.hint
		}
		f.bad = &usageError{dashed(name) + ": " + err.Error(), hint}
		return err
	})
}

// text binds a flag that may not be empty, and not be given twice with different
// values.
func (f *flags) text(name, usage string, to *string) {
	given := ""
	f.value(name, usage, func(s string) error {
		if given != "" && given != s { // docker's --subnet, for one, means both
			return &usageError{fmt.Sprintf("there are two, %q and %q", given, s), "give one"}
		}
		given = s
		if s == "" {
			return &usageError{"it is empty", "leave the flag out, or give it a value"}
		}
		*to = s
		return nil
	})
}

// list binds a flag that may be repeated; commas separate values, too.
func (f *flags) list(name, usage string, to *[]string) {
	f.value(name, usage, func(s string) error {
		for v := range strings.SplitSeq(s, ",") {
			if v == "" {
				return &usageError{fmt.Sprintf("%q holds an empty value", s), "repeat the flag, or separate values by one comma"}
			}
			*to = append(*to, v)
		}
		return nil
	})
}

// network binds --network.
func (f *flags) network(to *string) {
	f.value("network", "the `NETWORK`", func(s string) error {
		if was := *to; was != "" && was != strings.ToLower(s) {
			return &usageError{fmt.Sprintf("there are two, %q and %q", was, s), "give one"}
		}
		*to = strings.ToLower(s)
		return asUsage(control.CheckName("network", *to), map[string]string{"network": ""})
	})
}

// asUsage turns an *Error about the field of a request into one about the
// flag that the field comes from: flagOf maps field to flag, "" drops the name.
func asUsage(err error, flagOf map[string]string) error {
	e, ok := errors.AsType[*control.Error](err)
	if !ok {
		return err
	}
	name, known := flagOf[e.Field]
	msg := strings.TrimPrefix(e.Message, e.Field+": ")
	switch {
	case !known:
		msg = "--" + e.Field + ": " + msg
	case name != "":
		msg = name + ": " + msg
	}
	return &usageError{msg, e.Hint}
}
