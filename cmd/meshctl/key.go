package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"meshd/mesh/control"
)

func keyCommands() []command {
	const long = `KEY is a key in base64, "-" to read it from stdin (so that it does not show in the
list of processes)%s. [n/m] says how many of the nodes did it; the exit code
is 1 if one did not.`
	const orID = ", or the id of an installed key"
	return []command{
		{
			path: "key install", args: "KEY", min: 1, max: 1, short: "add a gossip key to every node, for reading only",
			long:    fmt.Sprintf(long, ""),
			example: "meshctl keygen --out new.key\nmeshctl key install - < new.key",
			setup:   keyVerb("install", "", func(s *session) keyCall { return s.client.InstallKey }),
		},
		{
			path: "key use", args: "KEY", min: 1, max: 1, short: "make every node encrypt with an installed key",
			long:    fmt.Sprintf(long, orID),
			example: "meshctl key use - < new.key",
			setup: keyVerb("use", "although some nodes do not have the key",
				func(s *session) keyCall { return s.client.UseKey }),
		},
		{
			path: "key remove", args: "KEY", min: 1, max: 1, short: "delete a gossip key from every node",
			long:    fmt.Sprintf(long, orID),
			example: "meshctl key remove 1f2e3d4c5b6a",
			setup: keyVerb("remove", "although some nodes do not answer, or are away",
				func(s *session) keyCall { return s.client.RemoveKey }),
		},
		{
			path: "key ls", short: "list the gossip keys and how many nodes have each",
			long:    "Keys are shown by their ids, never themselves. IN-USE counts the nodes that\nencrypt with the key.",
			example: "meshctl key ls", setup: func(*flags) action { return keyLs },
		},
	}
}

type keyCall func(context.Context, control.KeyRequest) (control.KeyReply, error)

// keyVerb is a command that changes the keyrings. although says, in the help of
// --force, what the flag overrides; if it is empty, there is no such flag.
func keyVerb(verb, although string, call func(*session) keyCall) func(*flags) action {
	return func(f *flags) action {
		force := false
		if although != "" {
			f.set.BoolVar(&force, "force", false, although+": they are locked out until somebody gives them the new one")
		}
		return func(ctx context.Context, s *session, args []string) error {
			req, err := s.readKey(args[0])
			if err != nil {
				return err
			}
			req.Force = force
			reply, err := call(s)(ctx, req)
			if err != nil {
				return err
			}
			return s.keyReply(reply, func(w io.Writer) { fmt.Fprintf(w, "%s [%d/%d]\n", verb, reply.OK, reply.Total) })
		}
	}
}

// readKey reads the argument KEY, from stdin if it is "-".
func (s *session) readKey(arg string) (control.KeyRequest, error) {
	if arg == "-" {
		line, err := bufio.NewReader(io.LimitReader(s.stdin, 1024)).ReadString('\n')
		if err != nil && line == "" {
			return control.KeyRequest{}, &usageError{
				"KEY: stdin holds no key",
				`pipe a key in, for example "meshctl key install - < new.key"`,
			}
		}
		arg = strings.TrimSpace(line)
	}
	req := control.KeyRequest{Key: arg}
	_, _, err := req.Parse()
	return req, asUsage(err, map[string]string{"key": "KEY"})
}

func keyLs(ctx context.Context, s *session, _ []string) error {
	reply, err := s.client.Keys(ctx)
	if err != nil {
		return err
	}
	return s.keyReply(reply, func(w io.Writer) {
		var rows [][]string
		for _, k := range reply.Keys {
			rows = append(rows, []string{k.ID, ratio(k.Nodes, reply.Total), ratio(k.Primary, reply.Total)})
		}
		table(w, "KEY NODES IN-USE", rows)
	})
}

// keyReply shows the reply and names the nodes that failed.
func (s *session) keyReply(reply control.KeyReply, table func(io.Writer)) error {
	if err := s.show(reply, table); err != nil {
		return err
	}
	for _, r := range reply.Results {
		if r.Error != "" && !s.json {
			fmt.Fprintf(s.stderr, "%s: %s\n", printable(r.Node), printable(r.Error))
		}
	}
	if reply.OK < reply.Total {
		return errNo
	}
	return nil
}

func ratio(n, m int) string { return "[" + strconv.Itoa(n) + "/" + strconv.Itoa(m) + "]" }
