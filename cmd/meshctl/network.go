package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"meshd/mesh/control"
)

func networkCommands() []command {
	return []command{
		{
			path: "network create", args: "NAME", min: 1, max: 1, short: "define a network",
			long: "The subnets are the pools that virtual IPs are taken from; tasks keep the\naddresses they have. Give " +
				"one per family, and no overlap with another network,\nnor with what a host of the mesh has: an address, a " +
				"route, a name server. Every\nlive node is asked.",
			example: "meshctl network create collabnet --subnet 10.96.0.0/16 --wait\nmeshctl network create six --subnet6 " +
				"fd00:9::/64",
			setup: networkCreate,
		},
		{
			path: "network ls", short: "list the networks",
			example: "meshctl network ls", setup: func(*flags) action { return networkLs },
		},
		{
			path: "network inspect", args: "NAME", min: 1, max: 1, complete: "network",
			short: "show a network's definition, participants and streams", example: "meshctl network inspect collabnet",
			setup: func(*flags) action { return networkInspect },
		},
		{
			path: "network rm", args: "NAME...", min: 1, max: -1, complete: "network",
			short:   "forget networks that no task uses",
			example: "meshctl network rm six", setup: networkRm,
		},
	}
}

func networkCreate(f *flags) action {
	var req control.CreateNetwork
	f.text("subnet", "the IPv4 pool of virtual IPs, a `CIDR`", &req.Subnet)
	f.text("subnet6", "the IPv6 prefix of virtual IPs, a `CIDR` of at most /64", &req.Subnet6)
	p := f.waiting("every live node knows the network")
	return func(ctx context.Context, s *session, args []string) error {
		req.Name = args[0]
		if _, err := req.Parse(); err != nil {
			return asUsage(err, map[string]string{"name": "NAME"})
		}
		wait, cancel := p.start(ctx)
		defer cancel()
		var n control.Network
		err := p.reach(wait, func() (err error) {
			n, err = s.client.CreateNetwork(ctx, req)
			return err
		})
		if err != nil {
			return renameField(err, map[string]string{"subnet": "--subnet", "subnet6": "--subnet6"})
		}
		if n.Conflict != "" {
			s.warn([]string{n.Conflict})
		}
		for _, what := range n.Against {
			s.warn([]string{what + "; vip services are answered with their tasks there"})
		}
		if len(n.Silent) > 0 {
			s.warn([]string{fmt.Sprintf("%d nodes did not say whether the pool is free there: %s; meshctl status there tells",
				len(n.Silent), strings.Join(n.Silent, ", "))})
		}
		if err := s.show(n, func(w io.Writer) { fmt.Fprintln(w, printable(n.Name)) }); err != nil {
			return err
		}
		return s.spread(ctx, wait, p, n.Name)
	}
}

func networkLs(ctx context.Context, s *session, _ []string) error {
	networks, err := s.client.Networks(ctx)
	if err != nil {
		return err
	}
	return s.show(networks, func(w io.Writer) {
		var rows [][]string
		for _, n := range networks {
			services, tasks := "", ""
			if n.Joined {
				services, tasks = strconv.Itoa(n.Services), strconv.Itoa(n.Tasks)
			}
			rows = append(rows, []string{
				n.Name, prefix(n.Subnet), prefix(n.Subnet6), yesNo(n.Joined),
				strconv.Itoa(len(n.Nodes)), services, tasks, n.Conflict,
			})
		}
		table(w, "NAME SUBNET SUBNET6 JOINED NODES SERVICES TASKS CONFLICT", rows)
	})
}

func networkInspect(ctx context.Context, s *session, args []string) error {
	name, err := nameArg("NAME", args[0])
	if err != nil {
		return err
	}
	n, err := s.client.Network(ctx, name)
	if err != nil {
		return err
	}
	return s.show(n, func(w io.Writer) { networkTable(w, n) })
}

func networkTable(w io.Writer, n control.NetworkDetail) {
	pairs(w, "Name", n.Name, "Subnet", prefix(n.Subnet), "Subnet6", prefix(n.Subnet6),
		"Virtual IPs", fmt.Sprintf("%d used, %d free (IPv4)", n.VIPsUsed, n.VIPsFree),
		"Nodes", strings.Join(n.Nodes, ","), "Joined", yesNo(n.Joined), "Synced", yesNo(n.Synced),
		"Checksum", n.Checksum, "Birth", strconv.FormatUint(n.Birth, 10), "Conflict", n.Conflict)
	if len(n.ServiceList) > 0 {
		fmt.Fprintln(w)
		serviceTable(w, n.ServiceList)
	}
	if len(n.Streams) > 0 {
		fmt.Fprintln(w)
		var rows [][]string
		for _, st := range n.Streams {
			rows = append(rows, []string{
				st.Owner, st.State, strconv.Itoa(st.Entries), strconv.FormatUint(st.Incarnation, 10),
				strconv.FormatUint(st.Version, 10), strconv.FormatUint(st.Floor, 10),
			})
		}
		table(w, "OWNER STATE ENTRIES INCARNATION VERSION FLOOR", rows)
	}
	section(w, "Warnings", n.Warnings)
}

func networkRm(f *flags) action {
	p := f.waiting("no live node knows the network any more")
	return func(ctx context.Context, s *session, args []string) error {
		wait, cancel := p.start(ctx)
		defer cancel()
		var removed []string
		failed := s.each(args, "NAME", func(name string) (any, error) {
			err := s.client.RemoveNetwork(ctx, name)
			if err == nil {
				removed = append(removed, name)
			}
			return map[string]string{"removed": name}, err
		})
		if err := s.spread(ctx, wait, p, removed...); err != nil {
			return s.printEarlier(failed, err)
		}
		return failed
	}
}

func prefix(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// nameArg checks a positional argument that is a name.
func nameArg(arg, s string) (string, error) {
	s = strings.ToLower(s)
	return s, asUsage(control.CheckName("name", s), map[string]string{"name": arg})
}
