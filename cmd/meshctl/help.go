package main

import (
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"
)

const exitCodes = `Exit codes: 0 done, 1 refused by meshd or not so in time, 2 usage, 3 cannot reach meshd, 130 interrupted.
`

// helpText returns the help of a command, a group of commands or the program.
func (c *commandLine) helpText() string {
	if c.cmd != nil {
		return c.commandHelp()
	}
	var b strings.Builder
	if c.path == "" {
		b.WriteString("meshctl talks to the meshd of this host.\n\n")
	}
	fmt.Fprintf(&b, "Usage: %s COMMAND [FLAGS]\n\nCommands:\n", c.name())
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, cmd := range commands() {
		if strings.HasPrefix(cmd.path, strings.TrimLeft(c.path+" ", " ")) {
			fmt.Fprintf(w, "  %s\t%s\n", cmd.synopsis(), cmd.short)
		}
	}
	_ = w.Flush() // a strings.Builder does not fail
	b.WriteString("\nFlags of every command:\n" + c.flagHelp())
	fmt.Fprintf(&b, "\n\"%s COMMAND --help\" says more, with an example.\n%s", c.name(), exitCodes)
	return b.String()
}

func (c *commandLine) commandHelp() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: meshctl %s [FLAGS]\n\n%s\n", c.cmd.synopsis(), sentence(c.cmd.short))
	if c.cmd.long != "" {
		b.WriteString("\n" + strings.TrimSpace(c.cmd.long) + "\n")
	}
	b.WriteString("\nFlags:\n" + c.flagHelp() + "\nExample:\n")
	for line := range strings.SplitSeq(strings.TrimSpace(c.cmd.example), "\n") {
		b.WriteString("  " + line + "\n")
	}
	b.WriteString("\n" + exitCodes)
	return b.String()
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

func (c *commandLine) flagHelp() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	c.flags.set.VisitAll(func(f *flag.Flag) {
		if f.Name == "output" {
			return // -o says it
		}
		arg, usage := flag.UnquoteUsage(f)
		if arg != "" && isSwitch(f) {
			arg = "[=" + arg + "]"
		} else if arg != "" {
			arg = " " + arg
		}
		fmt.Fprintf(w, "  %s%s\t%s\n", dashed(f.Name), arg, usage)
	})
	_ = w.Flush() // a strings.Builder does not fail
	return b.String()
}

// orList writes a list for people: "A, AAAA or SRV".
func orList(items []string) string {
	last := len(items) - 1
	if last < 1 {
		return strings.Join(items, "")
	}
	return strings.Join(items[:last], ", ") + " or " + items[last]
}
