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

func sandboxCommands() []command {
	return []command{
		{
			path: "sandbox attach", short: "give a container a name server on 127.0.0.11 and a load balancer of its own",
			setup: sandboxAttach,
			long: `The container is named by the path of its network namespace or by a process in
it; the sandbox ends with that. Short names are looked up in the networks in the
order given: the first that knows a name answers. With --service, the container
is also registered as a task, in each of the networks, with the addresses found
in the namespace or those of --ip. --resolv-conf names the server in the file
that the container sees as /etc/resolv.conf; "auto" finds that file by --pid, or
is /etc/netns/NAME/resolv.conf. What attach made, detach removes; a restart of
meshd keeps it.`,
			example: `meshctl sandbox attach --netns web --network collabnet --name web-1 --service web --port http:80
meshctl sandbox attach --pid 4711 --network collabnet,backend --name worker --resolv-conf auto`,
		},
		{
			path: "sandbox detach", args: "NAME|ID...", min: 1, max: -1, complete: "sandbox", setup: sandboxDetach,
			short:   "remove sandboxes with all that was made in them, their tasks included",
			example: "meshctl sandbox detach worker",
		},
		{
			path: "sandbox ls", short: "list the sandboxes of this node", setup: func(*flags) action { return sandboxLs },
			long:    "STATE is starting, ready, degraded (inspect says why) or ending. LB is the driver\nthat balances inside.",
			example: "meshctl sandbox ls",
		},
		{
			path: "sandbox inspect", args: "NAME|ID", min: 1, max: 1, complete: "sandbox",
			setup:   func(*flags) action { return sandboxInspect },
			short:   "show a sandbox's namespace, name server, problems and load balancer's table",
			example: "meshctl sandbox inspect worker",
		},
	}
}

func sandboxAttach(f *flags) action {
	var req control.AttachSandbox
	var task control.AddTask
	f.list("network", "a `NETWORK` to attach to; may be repeated, the first is searched first", &req.Networks)
	f.text("netns", "the network namespace: its `PATH`, or its name in \"ip netns list\"", &req.Netns)
	f.value("pid", "a process in the namespace, its `ID` as meshd sees it", func(s string) error {
		n, err := number(s, 22)
		req.PID = int(n)
		return err
	})
	f.text("name", "the sandbox's `NAME`, and the container name of its task (default: generated)", &req.Name)
	f.text("resolv-conf", "name the server in this `FILE` until the end, or in the container's if it is auto",
		&req.ResolvConf)
	f.task(&task)
	p := f.waiting("every live node has its task, too")
	return func(ctx context.Context, s *session, _ []string) error {
		if !task.IsZero() {
			req.Task = &task
		}
		return s.attachSandbox(ctx, req, p)
	}
}

func (s *session) attachSandbox(ctx context.Context, req control.AttachSandbox, p *patience) error {
	names := taskFlags()
	names["networks"], names["resolv_conf"], names["netns"], names["pid"] = "--network", "--resolv-conf", "--netns",
		"--pid"
	if _, err := req.Parse(); err != nil {
		return asUsage(err, names)
	}
	wait, cancel := p.start(ctx)
	defer cancel()
	var reply control.SandboxAttached
	err := p.reach(wait, func() (err error) {
		reply, err = s.client.AttachSandbox(ctx, req)
		return err
	})
	if err != nil {
		return renameField(err, names)
	}
	if !s.json {
		s.warn(reply.Warnings)
	}
	if err := s.show(reply, func(w io.Writer) { fmt.Fprintln(w, printable(reply.Sandbox.Name)) }); err != nil {
		return err
	}
	return s.spread(ctx, wait, p, reply.Sandbox.Networks...)
}

func sandboxDetach(*flags) action {
	return func(ctx context.Context, s *session, args []string) error {
		for _, a := range args {
			if err := checkSandbox(a); err != nil {
				return err
			}
		}
		done, failed := []control.SandboxDetached{}, error(nil)
		for _, a := range args {
			reply, err := s.client.DetachSandbox(ctx, a)
			if err != nil {
				failed = s.printEarlier(failed, err)
				continue
			}
			if done = append(done, reply); !s.json {
				s.warn(reply.Warnings)
				fmt.Fprintln(s.stdout, printable(reply.Sandbox.Name))
			}
		}
		if s.json {
			if err := s.show(done, nil); err != nil {
				return err
			}
		}
		return failed
	}
}

// checkSandbox checks an argument that names a sandbox.
func checkSandbox(arg string) error {
	return asUsage(control.CheckSandbox(strings.ToLower(arg)), map[string]string{"sandbox": "NAME"})
}

func sandboxLs(ctx context.Context, s *session, _ []string) error {
	sandboxes, err := s.client.Sandboxes(ctx)
	if err != nil {
		return err
	}
	return s.show(sandboxes, func(w io.Writer) {
		var rows [][]string
		for _, b := range sandboxes {
			rows = append(rows, []string{
				b.Name, b.ID, b.State, strings.Join(b.Networks, ","), join(b.Addresses), b.Service, b.LBDriver, namespaceOf(b),
				s.age(b.Since),
			})
		}
		table(w, "NAME ID STATE NETWORKS ADDRESSES SERVICE LB NAMESPACE AGE", rows)
	})
}

// namespaceOf says by what a sandbox was attached.
func namespaceOf(b control.Sandbox) string {
	if b.PID > 0 {
		return "pid " + strconv.Itoa(b.PID)
	}
	return b.Netns
}

func sandboxInspect(ctx context.Context, s *session, args []string) error {
	if err := checkSandbox(args[0]); err != nil {
		return err
	}
	d, err := s.client.Sandbox(ctx, args[0])
	if err != nil {
		return err
	}
	return s.show(d, func(w io.Writer) { s.sandboxDetail(w, d) })
}

func (s *session) sandboxDetail(w io.Writer, d control.SandboxDetail) {
	pairs(w, "Name", d.Name, "ID", d.ID, "State", d.State, "Networks", strings.Join(d.Networks, ","),
		"Namespace", fmt.Sprintf("%s (net:[%d])", namespaceOf(d.Sandbox), d.Inode), "Addresses", join(d.Addresses),
		"DNS", dnsLine(d), "resolv.conf", d.ResolvConf, "Service", d.Service, "Task", d.Task,
		"Attached", fmt.Sprintf("%s (%s ago)", d.Since.UTC().Format(time.RFC3339), s.age(d.Since)))
	section(w, "Problems", d.Problems)
	fmt.Fprintln(w)
	s.lbTable(w, d.LB)
}

func dnsLine(d control.SandboxDetail) string {
	switch {
	case d.DNS == "":
		return ""
	case !d.Redirected:
		return d.DNS + " (on port 53 itself: no nftables in the kernel)"
	}
	return fmt.Sprintf("%s (redirected to port %d)", d.DNS, d.DNSPort)
}
