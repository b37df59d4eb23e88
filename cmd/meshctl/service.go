package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"meshd/mesh/control"
	"meshd/state"
)

func serviceCommands() []command {
	return []command{
		{
			path: "service ls", short: "list the services", setup: serviceLs,
			long:    "TASKS is serving/all. NOTE says what does not work fully.",
			example: "meshctl service ls --network collabnet",
		},
		{
			path: "service inspect", args: "SERVICE", min: 1, max: 1, complete: "service", setup: serviceInspect,
			short:   "show a service's settings, virtual IP claims, names and tasks",
			example: "meshctl service inspect wordpressapp --network collabnet",
		},
		{
			path: "service set", args: "SERVICE", min: 1, max: 1, complete: "service", setup: serviceSet,
			short: "change a service's settings, from a node that has tasks of it",
			long:  "What is not given stays as it is. Every node follows.",
			example: "meshctl service set wordpressapp --network collabnet --ttl 2s\nmeshctl service set wordpressapp " +
				"--network collabnet --mode dnsrr --ttl default",
		},
		{
			path: "service ps", args: "SERVICE", min: 1, max: 1, complete: "service", setup: servicePs,
			short: "list the tasks of a service on all nodes", example: "meshctl service ps wordpressapp --network collabnet",
		},
	}
}

func serviceLs(f *flags) action {
	var network string
	f.network(&network)
	return func(ctx context.Context, s *session, _ []string) error {
		services, err := s.client.Services(ctx, network)
		if err != nil {
			return err
		}
		return s.show(services, func(w io.Writer) { serviceTable(w, services) })
	}
}

func serviceTable(w io.Writer, services []control.Service) {
	var rows [][]string
	for _, v := range services {
		notes := slices.Compact([]string{v.Degraded, v.Conflict, v.Panic}) // the same where the conflict is why
		note := strings.Join(slices.DeleteFunc(notes, func(s string) bool { return s == "" }), "; ")
		rows = append(rows, []string{
			v.Name, v.Network, v.Mode, join(v.VIPs), strings.Join(v.Ports, ","), v.Scheduler,
			fmt.Sprintf("%d/%d", v.Tasks.Serving, allTasks(v.Tasks)), note,
		})
	}
	table(w, "NAME NETWORK MODE VIP PORTS SCHEDULER TASKS NOTE", rows)
}

func allTasks(c control.TaskCount) int {
	return c.Serving + c.Suspect + c.Failing + c.Draining + c.Unready
}

func serviceInspect(f *flags) action {
	var network string
	f.network(&network)
	return func(ctx context.Context, s *session, args []string) error {
		ref, err := serviceRef(network, args[0])
		if err != nil {
			return err
		}
		d, err := s.client.Service(ctx, ref)
		if err != nil {
			return err
		}
		return s.show(d, func(w io.Writer) { serviceDetail(w, d) })
	}
}

func serviceDetail(w io.Writer, d control.ServiceDetail) {
	c := d.Service.Tasks
	pairs(w, "Name", d.Name, "Network", d.Network, "Mode", d.Mode, "Virtual IPs", join(d.VIPs),
		"Also served", join(d.OtherVIPs), "Ports", strings.Join(d.Ports, ","), "Scheduler", d.Scheduler,
		"Affinity", millis(d.Affinity), "Drain", millis(d.Drain), "TTL", seconds(d.TTL), "Names", strings.Join(d.Names, ","),
		"Tasks", fmt.Sprintf("%d serving, %d suspect, %d failing, %d draining, %d unready",
			c.Serving, c.Suspect, c.Failing, c.Draining, c.Unready), "Panic", d.Panic,
		"Degraded", d.Degraded, "Conflict", d.Conflict)
	if len(d.Claims) > 0 {
		fmt.Fprintln(w)
		var rows [][]string
		for _, c := range d.Claims {
			rows = append(rows, []string{
				c.VIP.String(), c.Node, yesNo(c.Pinned), strconv.FormatUint(c.Birth, 10),
				yesNo(c.Wins),
			})
		}
		table(w, "VIP CLAIMED-BY PINNED BIRTH WINS", rows)
	}
	if len(d.TaskList) > 0 {
		fmt.Fprintln(w)
		taskTable(w, d.TaskList)
	}
	section(w, "Warnings", d.Warnings)
}

func millis(ms int64) string {
	if ms == 0 {
		return ""
	}
	return strconv.FormatInt(ms, 10) + "ms"
}

func serviceSet(f *flags) action {
	var network string
	var req control.SetService
	f.network(&network)
	f.settings(&req)
	p := f.waiting(inEffect)
	return func(ctx context.Context, s *session, args []string) error {
		ref, err := serviceRef(network, args[0])
		if err != nil {
			return err
		}
		if _, err := req.Apply(state.Settings{}); err != nil {
			return asUsage(err, nil)
		}
		wait, cancel := p.start(ctx)
		defer cancel()
		v, err := s.client.SetService(ctx, ref, req)
		if err != nil {
			return err
		}
		if err := s.show(v, func(w io.Writer) { serviceTable(w, []control.Service{v}) }); err != nil {
			return err
		}
		return s.spread(ctx, wait, p, ref.Network)
	}
}

func seconds(s int64) string {
	if s == 0 {
		return ""
	}
	return strconv.FormatInt(s, 10) + "s"
}

func servicePs(f *flags) action {
	var network string
	f.network(&network)
	return func(ctx context.Context, s *session, args []string) error {
		ref, err := serviceRef(network, args[0])
		if err != nil {
			return err
		}
		tasks, err := s.client.ServiceTasks(ctx, ref)
		if err != nil {
			return err
		}
		return s.show(tasks, func(w io.Writer) {
			var rows [][]string
			for _, t := range tasks {
				rows = append(rows, []string{
					t.ID, t.TaskName, join(t.IPs), strings.Join(t.Ports, ","), strconv.Itoa(int(t.Weight)), t.Health, t.State, t.Node,
				})
			}
			table(w, "ID NAME IP PORTS WEIGHT HEALTH STATE NODE", rows)
		})
	}
}

// serviceRef checks what names a service on the command line.
func serviceRef(network, name string) (control.ServiceRef, error) {
	name, err := nameArg("SERVICE", name)
	if err == nil && network == "" {
		err = &usageError{"--network is missing", `a service lives in a network: "meshctl network ls" lists them`}
	}
	return control.ServiceRef{Network: network, Name: name}, err
}
