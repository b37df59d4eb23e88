package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"meshd/mesh/control"
)

func lbCommands() []command {
	return []command{
		{
			path: "lb ls", short: "list the load balancer's table: desired beside actual, with counters", setup: lbLs,
			long: `A service's own line has no task. Ports "all/tcp" and "all/udp" stand for a service
without declared ports. DESIRED and ACTUAL are weights; "-" is none, or a figure that
the driver does not count. States: ok; missing, extra, differs: not yet, or not any
more, as it should be; draining: no new connections, removed when those it has have
ended.`,
			example: "meshctl lb ls --network collabnet\nmeshctl lb ls --sandbox web-1 --service api",
		},
		{
			path: "lb verify", short: "compare the kernel with what should be in it, now, and repair it", setup: lbVerify,
			long: `meshd does the same by itself every 30 s (--lb-verify), and when it sees others
write there. Everything is read back: services and backends, rules, routes, marks
and sysctls, on the host and in every sandbox. Each difference is something that
somebody else changed. The exit code is 0 if all was as it should be, and 1 if
something differed, repaired or not, or could not be compared.`,
			example: "meshctl lb verify\nmeshctl lb verify --dry-run -o json",
		},
	}
}

// sandbox binds --sandbox.
func (f *flags) sandbox(to *string, usage string) { f.text("sandbox", usage, to) }

func lbLs(f *flags) action {
	var req control.LBRequest
	f.network(&req.Network)
	f.text("service", "only this `SERVICE`", &req.Service)
	f.sandbox(&req.Sandbox, "the table of the sandbox `NAME` (default: the host's)")
	return func(ctx context.Context, s *session, _ []string) error {
		req.Service = strings.ToLower(req.Service)
		if err := req.Check(); err != nil {
			return asUsage(err, nil)
		}
		t, err := s.client.LB(ctx, req)
		if err != nil {
			return err
		}
		return s.show(t, func(w io.Writer) { s.lbTable(w, t) })
	}
}

func (s *session) lbTable(w io.Writer, t control.LBTable) {
	fmt.Fprintln(w, printable(s.lbSummary(t)))
	kv := []string{"Driver", lbLine(t.Driver, t.Why)}
	if t.LastError != "" {
		kv = append(kv, "Last error", t.LastError)
	}
	pairs(w, kv...)
	fmt.Fprintln(w)
	var rows [][]string
	var failed []string
	for _, v := range t.Services {
		rows = append(rows, append([]string{v.Network, v.Service, vipPort(v), scheduler(&v), "", "", "", "", v.State},
			counters(v.Counters)...))
		for _, b := range v.Backends {
			state := b.State
			if !b.Until.IsZero() {
				state += " <" + strconv.Itoa(max(0, int(b.Until.Sub(s.now()).Seconds()))) + "s"
			}
			rows = append(rows, append([]string{
				v.Network, v.Service, vipPort(v), scheduler(&v), firstNonEmpty(b.TaskName, b.Task), backendAddr(b.Address),
				weight(b.Desired), weight(b.Actual), state,
			}, counters(b.Counters)...))
		}
		if v.Error != "" {
			failed = append(failed, vipPort(v)+": "+v.Error)
		}
	}
	table(w, "NETWORK SERVICE VIP SCHEDULER TASK ADDRESS DESIRED ACTUAL STATE ACTIVE CONNS PKTS-IN PKTS-OUT BYTES-IN "+
		"BYTES-OUT", rows)
	section(w, "Errors", failed)
}

// scheduler returns the scheduler as asked for, with the one that runs if it is
// another.
func scheduler(v *control.LBService) string {
	if v.RunsAs == "" {
		return v.Scheduler
	}
	return v.Scheduler + " (runs as " + v.RunsAs + ")"
}

func firstNonEmpty(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// lbSummary says in one line how far the kernel agrees with the table.
func (s *session) lbSummary(t control.LBTable) string {
	var b strings.Builder
	if t.Sandbox != "" {
		fmt.Fprintf(&b, "sandbox %s: ", t.Sandbox)
	}
	b.WriteString(t.Driver)
	if t.InSync {
		b.WriteString(": in sync")
	} else {
		b.WriteString(": not in sync")
	}
	fmt.Fprintf(&b, ", %d pending, %d draining", t.Pending, t.Draining)
	if !t.LastApply.IsZero() {
		fmt.Fprintf(&b, ", changed %s ago", s.age(t.LastApply))
	}
	if t.LastVerify.IsZero() {
		b.WriteString(", not verified yet")
		return b.String()
	}
	fmt.Fprintf(&b, ", verified %s ago: %s", s.age(t.LastVerify.At), foundText(t.LastVerify))
	return b.String()
}

// many counts things.
func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// foundText says in a few words what a comparison found.
func foundText(r control.LBReport) string {
	switch r.Result {
	case control.LBDrift:
		return fmt.Sprintf("%s, %d repaired", many(r.Found, "difference"), r.Repaired)
	case control.LBBehind:
		return fmt.Sprintf("in sync but for %d pending", r.Pending)
	case control.LBInSync:
		return "in sync"
	}
	return r.Result + ": " + r.Error
}

func lbVerify(f *flags) action {
	var req control.LBVerifyRequest
	f.sandbox(&req.Sandbox, "only the sandbox `NAME`")
	f.set.BoolVar(&req.Host, "host", false, "only the host, no sandbox")
	f.set.BoolVar(&req.ReportOnly, "dry-run", false, "report what differs, and repair nothing")
	f.set.BoolVar(&req.ReportOnly, "no-repair", false, "the same as --dry-run")
	return func(ctx context.Context, s *session, _ []string) error {
		if err := req.Check(); err != nil {
			return asUsage(err, nil)
		}
		reply, err := s.client.VerifyLB(ctx, req)
		if err != nil {
			return err
		}
		if err := s.show(reply, func(w io.Writer) { lbReports(w, reply) }); err != nil {
			return err
		}
		if !reply.InSync {
			return errNo
		}
		return nil
	}
}

func lbReports(w io.Writer, reply control.LBVerifyReply) {
	for i, r := range reply.Reports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		where := "host"
		if r.Sandbox != "" {
			where = "sandbox " + r.Sandbox
		}
		took := time.Duration(r.TookMillis * float64(time.Millisecond)).Round(10 * time.Microsecond)
		fmt.Fprintf(w, "%s (%s): %s; %s and %s read back in %v\n",
			printable(where), printable(r.Driver), printable(foundText(r)), many(r.Services, "service"),
			many(r.Backends, "backend"), took)
		if len(r.Differences) == 0 {
			continue
		}
		var rows [][]string
		for _, d := range r.Differences {
			rows = append(rows, []string{d.What, d.Kind, d.Found, d.Want, yesNo(d.Repaired), d.Outcome})
		}
		fmt.Fprintln(w)
		table(w, "WHAT DIFFERENCE FOUND WANT REPAIRED NOTE", rows)
		if more := r.Found - len(r.Differences); more > 0 {
			fmt.Fprintf(w, "… and %d more\n", more)
		}
	}
}

// lbHealth prints a line per load balancer.
func (s *session) lbHealth(w io.Writer, all []control.LBHealth) {
	if len(all) == 0 {
		return
	}
	var rows [][]string
	for _, h := range all {
		verified := ""
		if !h.LastVerify.IsZero() {
			verified = s.age(h.LastVerify) + " ago: " + h.LastResult
		}
		where := "(host)"
		if h.Sandbox != "" {
			where = h.Sandbox
		}
		rows = append(rows, []string{
			where, h.Driver, yesNo(h.InSync), fmt.Sprintf("%d/%d", h.Services, h.Desired), strconv.Itoa(h.Pending),
			strconv.Itoa(h.Draining), verified,
		})
	}
	fmt.Fprintln(w)
	table(w, "BALANCER DRIVER IN-SYNC SERVICES PENDING DRAINING VERIFIED", rows)
}

// vipPort formats VIP:PORT/PROTO or VIP:all.
func vipPort(v control.LBService) string {
	if v.VIP.Is6() {
		return "[" + v.VIP.String() + "]:" + v.Port
	}
	return v.VIP.String() + ":" + v.Port
}

func backendAddr(a netip.AddrPort) string {
	switch {
	case !a.Addr().IsValid():
		return ""
	case a.Port() == 0:
		return a.Addr().String()
	}
	return a.String()
}

func weight(n int) string { return count(int64(n)) }

func counters(c control.Counters) []string {
	return []string{
		count(c.Active), count(c.Connections), count(c.PacketsIn), count(c.PacketsOut), count(c.BytesIn),
		count(c.BytesOut),
	}
}
