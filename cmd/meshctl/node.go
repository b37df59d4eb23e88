package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"meshd/mesh/control"
)

func nodeCommands() []command {
	return []command{
		{
			path: "node ls", short: "list the nodes of the mesh as this one sees them",
			long:    "Dead nodes stay listed as long as they are remembered. SINCE is how long the\nstate has lasted.",
			example: "meshctl node ls\nmeshctl node ls -o json | jq -r '.[] | select(.state == \"dead\") | .name'",
			setup:   func(*flags) action { return nodeLs },
		},
		{
			path: "join", args: "ADDR...", min: 1, max: -1, short: "contact nodes and become one mesh with them",
			long:    "It is done if one of the addresses answers. meshd remembers its peers and comes\nback to them by itself after a partition or a restart.",
			example: "meshctl join 192.0.2.10:7946 192.0.2.11",
			setup:   func(*flags) action { return joinMesh },
		},
		{
			path: "leave", short: "withdraw this node's tasks, say goodbye and stop meshd",
			example: "meshctl leave",
			setup:   func(*flags) action { return leave },
		},
		{
			path: "status", short: "describe this node: members, networks, what works and what does not",
			example: "meshctl status\nmeshctl status -o json | jq .degraded",
			setup:   func(*flags) action { return status },
		},
		doctorCommand(),
		{
			path: "metrics", short: "print the metrics of this node in the Prometheus text format",
			example: "meshctl metrics | grep queue",
			setup: func(*flags) action {
				return func(ctx context.Context, s *session, _ []string) error { return s.client.Metrics(ctx, s.stdout) }
			},
		},
	}
}

func nodeLs(ctx context.Context, s *session, _ []string) error {
	nodes, err := s.client.Nodes(ctx)
	if err != nil {
		return err
	}
	return s.show(nodes, func(w io.Writer) {
		var rows [][]string
		for _, n := range nodes {
			rows = append(rows, []string{n.Name, n.Address, n.State, s.age(n.Since), n.LBDriver, strings.Join(n.Networks, ","), n.Version})
		}
		table(w, "NAME ADDRESS STATE SINCE LB NETWORKS VERSION", rows)
	})
}

func joinMesh(ctx context.Context, s *session, args []string) error {
	var req control.JoinRequest
	for _, a := range args {
		req.Addresses = append(req.Addresses, strings.Split(a, ",")...)
	}
	if _, err := req.Parse(); err != nil {
		return asUsage(err, map[string]string{"addresses": "ADDR"})
	}
	reply, err := s.client.Join(ctx, req)
	if err != nil {
		return err
	}
	for _, r := range reply.Results {
		if r.Error != "" {
			s.warn([]string{fmt.Sprintf("%s did not answer: %s", r.Address, r.Error)})
		}
	}
	return s.show(reply, func(w io.Writer) {
		for _, r := range reply.Results {
			if r.Error == "" {
				fmt.Fprintf(w, "joined %s\n", r.Address)
			}
		}
		fmt.Fprintf(w, "%s alive\n", nodes(reply.Members))
	})
}

func leave(ctx context.Context, s *session, _ []string) error {
	reply, err := s.client.Leave(ctx)
	if err != nil {
		return err
	}
	return s.show(reply, func(w io.Writer) {
		fmt.Fprintf(w, "left the mesh; told %s\n", nodes(reply.Told))
		if reply.Stopping {
			fmt.Fprintln(w, "meshd stops")
		}
	})
}

func status(ctx context.Context, s *session, _ []string) error {
	st, err := s.client.Status(ctx)
	if err != nil {
		return err
	}
	return s.show(st, func(w io.Writer) { s.statusTable(w, st) })
}

// tableLine says how much of what they may hold the tables hold.
func tableLine(u control.TableUsage) string {
	return fmt.Sprintf("%d of %d records, %.1f of %d MiB of text", u.Records, u.MaxRecords, float64(u.Bytes)/(1<<20), u.MaxBytes>>20)
}

func (s *session) statusTable(w io.Writer, st control.Status) {
	health := "ok"
	if len(st.Degraded)+len(st.Conflicts) > 0 || st.Preserving {
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
		"Tables", tableLine(st.Tables), "Local tasks", strconv.Itoa(st.LocalTasks), "Sandboxes", strconv.Itoa(st.Sandboxes), "Events", strconv.FormatUint(st.EventIndex, 10),
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
			rows = append(rows, []string{networkName(n.Network), yesNo(n.Synced), n.Checksum, strconv.Itoa(n.Services), strconv.Itoa(n.Tasks)})
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
