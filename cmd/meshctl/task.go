package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"meshd/mesh/control"
)

func taskCommands() []command {
	return []command{
		{
			path: "task add", short: "register a task of this node", setup: taskAdd,
			long: `It prints the task's id. The task is announced to every node of the network at
once and survives a restart of meshd. It gets the connections to the ports of the
virtual IP that it declares; without --port those to all ports, those included
that other tasks declare. With --port 80:8080 it gets those to port 80 at its own
port 8080, the order of "docker run -p": tasks that share an address need ports
of their own. With --wait it ends when every node of the network answers with
the task and balances to it.`,
			example: `meshctl task add --network collabnet --service wordpressapp --ip 10.1.0.7 --port http:80
meshctl task add --network collabnet --service wordpressapp --ip 192.0.2.10 --port http:80:31874
meshctl task add --network collabnet --service db --slot 1 --ip 10.1.0.8 --ip fd00:1::8 --port 3306/tcp --alias mysql --wait`,
		},
		{
			path: "task rm", args: "ID...", min: 1, max: -1, complete: "task", short: "deregister tasks of this node",
			long:    "Run \"task drain\" some time before, to let connections finish.",
			example: "meshctl task rm 3f9c2a --network collabnet", setup: taskRm,
		},
		{
			path: "task drain", args: "ID...", min: 1, max: -1, complete: "task",
			short:   "send tasks of this node no new connections",
			example: "meshctl task drain 3f9c2a", setup: taskDrain,
		},
		{
			path: "task ls", short: "list the tasks of this node, or of all with --all",
			example: "meshctl task ls --network collabnet\nmeshctl task ls --all", setup: taskLs,
		},
	}
}

func taskAdd(f *flags) action {
	var req control.AddTask
	f.network(&req.Network)
	f.text("name", "the container `NAME` of the task", &req.Name)
	f.task(&req)
	p := f.waiting(inEffect)
	return func(ctx context.Context, s *session, _ []string) error { return s.addTask(ctx, req, p) }
}

// task binds the flags of a task but for network and name.
func (f *flags) task(req *control.AddTask) {
	f.text("service", "the `SERVICE` that the task belongs to", &req.Service)
	f.list("ip", "the task's `IP`; give it twice for IPv4 and IPv6", &req.IPs)
	f.text("id", "the task's `ID` (default: generated)", &req.ID)
	f.value("slot", "the task's number in the service, `N` from 1", func(s string) error {
		n, err := number(s, 32)
		req.Slot = uint32(n)
		return err
	})
	f.list("port", "a port of the service, and where the task listens if that is another one, "+
		"`[NAME:]PORT[:TARGET][/tcp|udp]`; may be repeated (default: all ports)", &req.Ports)
	f.list("alias", "another `NAME` of the service, without dots or ending in .internal or the like; may be repeated",
		&req.Aliases)
	f.text("hostname", "a host `NAME` of the task", &req.Hostname)
	f.value("weight", "share of new connections, `W` from 1 to 65535 (default 1)", func(s string) error {
		n, err := number(s, 16)
		req.Weight = uint16(n)
		return err
	})
	f.list("vip", "pin the service's virtual `IP`; give it twice for IPv4 and IPv6", &req.VIPs)
	f.settings(&req.SetService)
}

// settings binds the flags of a service's settings.
func (f *flags) settings(req *control.SetService) {
	f.text("mode", "`MODE` of the service: vip or dnsrr (default: as it is, vip for a new one)", &req.Mode)
	f.text("scheduler", "`NAME` of the scheduler: "+strings.Join(control.Schedulers(), ", "), &req.Scheduler)
	f.text("ttl", "how long clients may keep the service's DNS answers, `TTL` from 1s to 1h, or default: each node's own",
		&req.TTL)
}

// taskFlags maps the fields of a task to the flags that set them, where the names
// differ.
func taskFlags() map[string]string {
	return map[string]string{
		"ips": "--ip", "ports": "--port", "aliases": "--alias", "vips": "--vip", "ttl": "--ttl",
		"id": "--id", "name": "--name",
	}
}

func (s *session) addTask(ctx context.Context, req control.AddTask, p *patience) error {
	if _, err := req.Parse(); err != nil {
		return asUsage(err, taskFlags())
	}
	wait, cancel := p.start(ctx)
	defer cancel()
	var reply control.TaskAdded
	err := p.reach(wait, func() (err error) {
		reply, err = s.client.AddTask(ctx, req)
		return err
	})
	if err != nil {
		return renameField(err, taskFlags())
	}
	if !s.json {
		s.warn(reply.Warnings)
	}
	if err := s.show(reply, func(w io.Writer) { fmt.Fprintln(w, printable(reply.Task.ID)) }); err != nil {
		return err
	}
	return s.spread(ctx, wait, p, req.Network)
}

// number reads a number from 1 to 2^bits-1.
func number(s string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil || n == 0 {
		return 0, &usageError{
			fmt.Sprintf("%q is not a number from 1 to %d", s, uint64(1)<<bits-1),
			"leave the flag out, or give a number in that range",
		}
	}
	return n, nil
}

func taskRm(f *flags) action {
	return taskVerb(f, func(s *session) taskCall { return s.client.RemoveTask })
}

func taskDrain(f *flags) action {
	return taskVerb(f, func(s *session) taskCall { return s.client.DrainTask })
}

type taskCall func(context.Context, control.TaskRef) (control.Task, error)

// taskVerb is a command that changes or removes tasks of this node.
func taskVerb(f *flags, call func(*session) taskCall) action {
	var network string
	f.network(&network)
	p := f.waiting(inEffect)
	return func(ctx context.Context, s *session, args []string) error {
		wait, cancel := p.start(ctx)
		defer cancel()
		var networks []string
		failed := s.each(args, "ID", func(id string) (any, error) {
			t, err := call(s)(ctx, control.TaskRef{ID: id, Network: network})
			if err == nil && !slices.Contains(networks, t.Network) {
				networks = append(networks, t.Network)
			}
			return t, err
		})
		if err := s.spread(ctx, wait, p, networks...); err != nil {
			return s.printEarlier(failed, err)
		}
		return failed
	}
}

func taskLs(f *flags) action {
	var filter control.TaskFilter
	f.network(&filter.Network)
	f.value("service", "only tasks of this `SERVICE`", func(v string) (err error) {
		filter.Service, err = nameArg("", v)
		return err
	})
	f.set.BoolVar(&filter.All, "all", false, "the tasks of every node")
	return func(ctx context.Context, s *session, _ []string) error {
		tasks, err := s.client.Tasks(ctx, filter)
		if err != nil {
			return err
		}
		return s.show(tasks, func(w io.Writer) { taskTable(w, tasks) })
	}
}

func taskTable(w io.Writer, tasks []control.Task) {
	var rows [][]string
	for _, t := range tasks {
		slot := ""
		if t.Slot > 0 {
			slot = strconv.FormatUint(uint64(t.Slot), 10)
		}
		rows = append(rows, []string{
			t.ID, t.Network, t.Service, slot, join(t.IPs), strings.Join(t.Ports, ","),
			strconv.Itoa(int(t.Weight)), t.Health, t.State, t.Node, t.Origin,
		})
	}
	table(w, "ID NETWORK SERVICE SLOT IP PORTS WEIGHT HEALTH STATE NODE ORIGIN", rows)
}

// each calls f for every argument, prints the name of each that succeeded, and
// goes on after a refusal. With -o json it prints one list of the results. It
// returns the last error, and has printed those before.
func (s *session) each(args []string, arg string, f func(name string) (any, error)) error {
	names := make([]string, len(args))
	for i, a := range args {
		var err error
		if names[i], err = nameArg(arg, a); err != nil {
			return err
		}
	}
	done, failed := []any{}, error(nil)
	for _, name := range names {
		v, err := f(name)
		if err != nil {
			failed = s.printEarlier(failed, err)
			continue
		}
		if done = append(done, v); !s.json {
			fmt.Fprintln(s.stdout, name)
		}
	}
	if s.json {
		if err := s.show(done, nil); err != nil {
			return err
		}
	}
	return failed
}

// printEarlier prints an earlier error, if there is one, and returns the newest,
// which the caller prints.
func (s *session) printEarlier(before, err error) error {
	if before != nil {
		s.fail("meshctl", s.socket, before)
	}
	return err
}
