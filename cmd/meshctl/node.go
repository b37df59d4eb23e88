package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"meshd/mesh/control"
)

func nodeCommands() []command {
	return []command{
		{
			path: "node ls", short: "list the nodes of the mesh as this one sees them",
			long: "Dead nodes stay listed as long as they are remembered. SINCE is how long the\nstate has lasted. With " +
				"--alive, the exit code is 1 if fewer are alive.",
			example: "meshctl node ls\nmeshctl node ls --alive 3 --wait\nmeshctl node ls -o json | jq -r '.[] | " +
				"select(.state == \"dead\") | .name'",
			setup: nodeLs,
		},
		{
			path: "join", args: "ADDR...", min: 1, max: -1, short: "contact nodes and become one mesh with them",
			long: "It is done if another node answers at one of the addresses. meshd remembers its\npeers and comes back " +
				"to them by itself after a partition or a restart.",
			example: "meshctl join 192.0.2.12:7946 192.0.2.13 --wait",
			setup:   joinMesh,
		},
		{
			path: "leave", short: "withdraw this node's tasks, say goodbye and stop meshd",
			example: "meshctl leave",
			setup:   func(*flags) action { return leave },
		},
		{
			path: "status", short: "describe this node: members, networks, what works and what does not",
			example: "meshctl status\nmeshctl status --wait 1m\nmeshctl status -o json | jq .degraded",
			long: "The exit code is 0 whatever it says. With --wait it waits until all is well here:\nmeshd answers, " +
				"nothing is degraded, and the tables have been compared with a peer;\nthe exit code is 1 if that does not come.",
			setup: status,
		},
		doctorCommand(),
		{
			path: "metrics", short: "print the metrics of this node in the Prometheus text format",
			example: "meshctl metrics | grep queue",
			setup: func(*flags) action {
				return func(ctx context.Context, s *session, _ []string) error {
					if s.json {
						return &usageError{"-o: metrics have one format, that of Prometheus", "leave it out"}
					}
					return s.client.Metrics(ctx, s.stdout)
				}
			},
		},
	}
}

func nodeLs(f *flags) action {
	alive := uint64(0)
	f.value("alive", "how many nodes are to be alive at least, `N`", func(v string) (err error) {
		alive, err = number(v, 32)
		return err
	})
	p := f.waiting("meshd answers, and so many nodes are alive")
	return func(ctx context.Context, s *session, _ []string) error {
		wait, cancel := p.start(ctx)
		defer cancel()
		for {
			var all []control.Node
			err := p.reach(wait, func() (err error) {
				all, err = s.client.Nodes(ctx)
				return err
			})
			if err != nil {
				return err
			}
			n := aliveOf(all)
			if n < alive && p.again(wait) {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := s.showNodes(all); err != nil || n >= alive {
				return err
			}
			return control.Refuse(control.CodeTimeout, "its log, and meshctl status on a node that is missing, say why",
				"%d of %d nodes are alive", n, alive)
		}
	}
}

func aliveOf(all []control.Node) (n uint64) {
	for _, x := range all {
		if x.State == control.NodeAlive {
			n++
		}
	}
	return n
}

func (s *session) showNodes(nodes []control.Node) error {
	return s.show(nodes, func(w io.Writer) {
		var rows [][]string
		for _, n := range nodes {
			rows = append(rows, []string{
				n.Name, n.Address, n.State, s.age(n.Since), n.LBDriver, strings.Join(n.Networks, ","),
				n.Version,
			})
		}
		table(w, "NAME ADDRESS STATE SINCE LB NETWORKS VERSION", rows)
	})
}

func joinMesh(f *flags) action {
	p := f.waiting("one of them answers, and this node has what they know")
	return func(ctx context.Context, s *session, args []string) error { return s.join(ctx, args, p) }
}

func (s *session) join(ctx context.Context, args []string, p *patience) error {
	var req control.JoinRequest
	for _, a := range args {
		req.Addresses = append(req.Addresses, strings.Split(a, ",")...)
	}
	if _, err := req.Parse(); err != nil {
		return asUsage(err, map[string]string{"addresses": "ADDR"})
	}
	wait, cancel := p.start(ctx)
	defer cancel()
	reply, err := s.joinOthers(ctx, req)
	for err != nil && (starting(err) || errors.Is(err, control.ErrRefused)) && p.again(wait) {
		reply, err = s.joinOthers(ctx, req)
	}
	if err != nil {
		return err
	}
	for _, r := range reply.Results {
		if r.Error != "" {
			s.warn([]string{fmt.Sprintf("%s did not answer: %s", r.Address, r.Error)})
		}
	}
	err = s.show(reply, func(w io.Writer) {
		for _, r := range reply.Results {
			if r.Error == "" {
				fmt.Fprintf(w, "joined %s\n", r.Address)
			}
		}
		fmt.Fprintf(w, "%s alive\n", nodes(reply.Members))
	})
	if err != nil {
		return err
	}
	return s.spread(ctx, wait, p, "")
}

// joinOthers joins, and refuses if only this node itself answered.
func (s *session) joinOthers(ctx context.Context, req control.JoinRequest) (control.JoinReply, error) {
	reply, err := s.client.Join(ctx, req)
	if err == nil && reply.Members == 1 {
		err = control.Refuse(control.CodeRefused, "give the address of another node; each needs a name of its own",
			"no other node answered: this one, or one of its name, is alone there")
		for _, r := range reply.Results {
			if r.Error != "" {
				return reply, control.Refuse(control.CodeRefused, "the other address is this node's own",
					"no other node answered: %s: %s", r.Address, r.Error)
			}
		}
	}
	return reply, err
}

func leave(ctx context.Context, s *session, _ []string) error {
	reply, err := s.client.Leave(ctx)
	if err != nil {
		return err
	}
	return s.show(reply, func(w io.Writer) {
		fmt.Fprintf(w, "left the mesh; told %s\n", nodes(reply.Informed))
		if reply.Stopping {
			fmt.Fprintln(w, "meshd stops")
		}
	})
}

func status(f *flags) action {
	p := f.waiting("all is well")
	return func(ctx context.Context, s *session, _ []string) error {
		wait, cancel := p.start(ctx)
		defer cancel()
		for {
			var st control.Status
			err := p.reach(wait, func() (err error) {
				st, err = s.client.Status(ctx)
				return err
			})
			if err != nil {
				return err
			}
			if !well(st) && p.again(wait) {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := s.show(st, func(w io.Writer) { s.statusTable(w, st) }); err != nil || p.limit == 0 || well(st) {
				return err
			}
			return errNo // the table says what is not
		}
	}
}

// healthy reports whether all that does not depend on other nodes works.
func healthy(st control.Status) bool {
	return len(st.Degraded)+len(st.Conflicts) == 0 && !st.Preserving
}

// well reports whether a node is healthy and has synced with its peers.
func well(st control.Status) bool {
	return healthy(st) && !slices.ContainsFunc(st.Networks, func(n control.NetworkStatus) bool { return !n.Synced })
}

// tableLine says how full the tables are.
func tableLine(u control.TableUsage) string {
	return fmt.Sprintf("%d of %d records, %.1f of %d MiB of text", u.Records, u.MaxRecords, float64(u.Bytes)/(1<<20),
		u.MaxBytes>>20)
}

func (s *session) statusTable(w io.Writer, st control.Status) {
	health := "ok"
	if !healthy(st) {
		health = "degraded"
	}
	m := st.Members
	kv := []string{
		"Node", st.Node, "Health", health, "Version", st.Version,
		"Started", fmt.Sprintf("%s (%s ago)", st.Started.UTC().Format(time.RFC3339), s.age(st.Started)),
		"Boot id", st.BootID, "Incarnation", strconv.FormatUint(st.Incarnation, 10),
		"Gossip", st.Bind, "Encrypted", yesNo(st.Encrypted), "DNS", strings.Join(st.DNS, ","), "Domain", st.Domain,
		"Data directory", st.DataDir, "Load balancer", lbLine(st.LBDriver, st.LBWhy),
		"Members", fmt.Sprintf("%d alive, %d suspect, %d dead, %d left", m.Alive, m.Suspect, m.Dead, m.Left),
		"Tables", tableLine(st.Tables), "Local tasks", strconv.Itoa(st.LocalTasks), "Sandboxes", strconv.Itoa(st.Sandboxes),
		"Events", strconv.FormatUint(st.EventIndex, 10),
	}
	if st.Preserving {
		kv = append(kv, "Self-preservation", "on: too many members vanished at once, their last known tasks are kept")
	}
	if st.Quarantined > 0 {
		kv = append(kv, "Quarantined records", strconv.Itoa(st.Quarantined))
	}
	pairs(w, kv...)
	if len(st.Networks) > 0 {
		fmt.Fprintln(w)
		var rows [][]string
		for _, n := range st.Networks {
			rows = append(rows, []string{
				networkName(n.Network), yesNo(n.Synced), n.Checksum, strconv.Itoa(n.Services),
				strconv.Itoa(n.Tasks),
			})
		}
		table(w, "NETWORK SYNCED CHECKSUM SERVICES TASKS", rows)
	}
	s.lbHealth(w, st.LB)
	section(w, "Degraded", st.Degraded)
	section(w, "Conflicts", st.Conflicts)
	section(w, "Warnings", st.Warnings)
}

func lbLine(driver, why string) string {
	if why == "" {
		return driver
	}
	return driver + " (" + why + ")"
}

// networkName names a scope: the global one has no name.
func networkName(s string) string {
	if s == "" {
		return "(global)"
	}
	return s
}
