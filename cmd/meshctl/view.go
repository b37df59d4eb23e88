package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"meshd/mesh/control"
)

func viewCommands() []command {
	return []command{
		{
			path: "resolve", args: "NAME", min: 1, max: 1, complete: "service", setup: resolve,
			short: "resolve a name as this node's DNS server would, and show each step",
			long: `A name that does not exist is an answer (NXDOMAIN), not a failure: the exit code
is 0. An IP address asks for its name.`,
			example: "meshctl resolve wordpressapp --network collabnet\nmeshctl resolve _http._tcp.wordpressapp --network " +
				"collabnet --type SRV\nmeshctl resolve www.example.com --network collabnet --trace",
		},
		{
			path: "watch", short: "print one line per change as it arrives", setup: watch,
			long: `It reconnects by itself and goes on where it was. A line of the type "reset" says
that changes were missed: read the lists again. With -o json, each line is a JSON
object; the first has the type "start" and says that the watch is on. It ends
with an interrupt and the exit code 0.`,
			example: "meshctl watch --network collabnet\nmeshctl watch -o json --from 4711",
		},
		{
			path: "diff", short: "ask every node for its table checksums and name who differs", setup: diff,
			long: `The exit code is 1 if tables differ or a live node did not answer. A change that
is on its way shows as a difference for some milliseconds: --wait asks again
until all are equal.`,
			example: "meshctl diff\nmeshctl diff --wait 10s && echo converged",
		},
	}
}

func resolve(f *flags) action {
	var req control.ResolveRequest
	f.network(&req.Network)
	f.text("type", "record `TYPE`: "+orList(control.ResolveTypes())+" (default: A and AAAA)", &req.Type)
	f.set.BoolVar(&req.Trace, "trace", false,
		"send a name of others to its servers too, and show each try, the cache and the path")
	return func(ctx context.Context, s *session, args []string) error {
		req.Name = args[0]
		if err := req.Check(); err != nil {
			return asUsage(err, map[string]string{"name": "NAME"})
		}
		reply, err := s.client.Resolve(ctx, req)
		if err != nil {
			return err
		}
		return s.show(reply, func(w io.Writer) { resolution(w, reply) })
	}
}

func resolution(w io.Writer, r control.Resolution) {
	var rows [][]string
	for i, st := range r.Steps {
		rows = append(rows, []string{strconv.Itoa(i + 1), st.Scope, st.Rule, strings.Join(st.Answer, ","), st.Why})
	}
	table(w, "STEP SCOPE RULE ANSWER WHY", rows)
	fmt.Fprintf(w, "\n%s: %s\n", printable(r.Name), printable(r.RCode))
	for _, a := range r.Answers {
		fmt.Fprintf(w, "  %s\n", printable(a))
	}
}

func diff(f *flags) action {
	var network string
	f.network(&network)
	p := f.waiting("all are equal")
	return func(ctx context.Context, s *session, _ []string) error { return s.diff(ctx, network, p) }
}

func (s *session) diff(ctx context.Context, network string, p *patience) error {
	wait, cancel := p.start(ctx)
	defer cancel()
	for {
		d, err := s.client.Diff(ctx, control.DiffRequest{Network: network})
		if err != nil {
			return err
		}
		if !d.Equal && p.again(wait) {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.show(d, func(w io.Writer) { diffTable(w, d) }); err != nil {
			return err
		}
		if !d.Equal {
			return errNo
		}
		return nil
	}
}

// nodes counts nodes for people.
func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return strconv.Itoa(n) + " nodes"
}

func diffTable(w io.Writer, d control.Diff) {
	var rows [][]string
	for _, n := range d.Networks {
		for _, c := range n.Nodes {
			verdict := "equal"
			for _, name := range n.Differ {
				if name == c.Node {
					verdict = "differs"
				}
			}
			rows = append(rows, []string{networkName(n.Network), c.Node, c.Checksum, strconv.Itoa(c.Entries), verdict})
		}
	}
	for _, n := range d.Silent {
		rows = append(rows, []string{"", n.Node, "", "", "silent"})
	}
	table(w, "NETWORK NODE CHECKSUM ENTRIES RESULT", rows)
	fmt.Fprintln(w)
	for _, n := range d.Networks {
		if n.Equal {
			fmt.Fprintf(w, "%s: equal on %s\n", printable(networkName(n.Network)), nodes(len(n.Nodes)))
			continue
		}
		fmt.Fprintf(w, "%s: %s differs from the rest\n", printable(networkName(n.Network)),
			printable(strings.Join(n.Differ, ", ")))
	}
	for _, n := range d.Silent {
		fmt.Fprintf(w, "%s did not answer: %s\n", printable(n.Node), printable(n.Error))
	}
}
