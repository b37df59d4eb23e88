//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// agreementLimit bounds each wait for the hosts to agree. The death of a host is
// noticed after some seconds.
const agreementLimit = 45 * time.Second

// stage is what every step stands on: the hosts, and how to ask them and to print
// what they answer.
type stage struct {
	ctx    context.Context
	out    io.Writer
	fleet  *fleet.Fleet
	kind   string                 // of the hosts; empty: prepared for the demo
	driver string                 // the load balancer of the first host; the others have the same
	nodes  []*fleet.Node          // host1, host2, host3
	boxes  map[string]*fleet.Task // every task that was attached, by the name of its sandbox
}

// show prints one exchange: what was asked, what came back, how long it took.
func (s *stage) show(asked, received string, took time.Duration) {
	fmt.Fprintf(s.out, "    %-62s → %s  (%s)\n", asked, received, short(took))
}

// printCtl runs meshctl on a node and prints its output.
func (s *stage) printCtl(n *fleet.Node, args ...string) error {
	out, err := n.Ctl(args...)
	for line := range strings.Lines(out) {
		fmt.Fprint(s.out, "        ", line)
	}
	return err
}

func (s *stage) printLogs() {
	for _, n := range s.nodes {
		if n.Proc != nil {
			fmt.Fprintf(s.out, "\n    the log of meshd on %s ends:\n%s\n", n.Host.Name, fleet.Tail(n.Proc.Log, 12))
		}
	}
}

// short formats a duration with two or three digits.
func short(t time.Duration) string {
	switch {
	case t < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(t.Microseconds())/1000)
	case t < time.Second:
		return fmt.Sprintf("%d ms", t.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", t.Seconds())
}

// until waits until check holds and says how long that took.
func (s *stage) until(check func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(s.ctx, rig.Patience(agreementLimit))
	defer cancel()
	start := time.Now()
	err := rig.Poll(ctx, check)
	if err != nil {
		err = fmt.Errorf("after %s: %w", short(time.Since(start)), err)
	}
	return time.Since(start), err
}

func (s *stage) everyNode(check func(*fleet.Node) error) error {
	for _, n := range s.nodes {
		if err := check(n); err != nil {
			return err
		}
	}
	return nil
}

// start runs a task on a node and prints the command that attached it.
func (s *stage) start(n *fleet.Node, service string, slot int, mode string) (*fleet.Task, error) {
	spec := fleet.Spec{Network: network, Service: service, Slot: slot, ID: newID(), Mode: mode, Sandbox: true}
	return s.startSpec(n, spec)
}

// startSpec is start for a task of any kind.
func (s *stage) startSpec(n *fleet.Node, spec fleet.Spec) (*fleet.Task, error) {
	begin := time.Now()
	t, err := n.Run(s.ctx, spec)
	if err != nil {
		return nil, err
	}
	s.boxes[t.Box] = t
	asked := fmt.Sprintf("%s: sandbox attach --netns … --service %s --slot %d", n.Host.Name, spec.Service, spec.Slot)
	s.show(asked, fmt.Sprintf("task %s at %s", spec.ID, t.Addr), time.Since(begin))
	return t, nil
}

// newID returns a random id, such as an orchestrator gives to a task.
func newID() string {
	const letters = 12
	id := strconv.FormatUint(rand.Uint64()|1<<63, 36)
	return id[len(id)-letters:]
}

// resolve asks for a name inside a task, prints the exchange, and fails if the
// answer is not the wanted one.
func (s *stage) resolve(from *fleet.Task, name string, qtype uint16, want string) error {
	a, err := from.Resolve(s.ctx, name, qtype)
	if err != nil {
		return err
	}
	s.show(fmt.Sprintf("%s: %s %s?", where(from), name, dns.TypeToString[qtype]), a.String(), a.Took)
	if a.String() != want {
		return fmt.Errorf("%s %s: got %s, want %s", name, dns.TypeToString[qtype], a, want)
	}
	return nil
}

// resolvesTo checks that inside a task, a name resolves to exactly the addresses
// of the given tasks.
func (s *stage) resolvesTo(from *fleet.Task, name string, tasks []*fleet.Task) error {
	a, err := from.Resolve(s.ctx, name, dns.TypeA)
	if err != nil {
		return err
	}
	if want := addresses(tasks); a.String() != want {
		return fmt.Errorf("%s: %s is %s, want %s", where(from), name, a, want)
	}
	return nil
}

// where says in which host and which task something is asked.
func where(t *fleet.Task) string {
	return fmt.Sprintf("%s, in %s.%d", t.Node.Host.Name, t.Service, t.Slot)
}

// addresses formats the addresses of tasks as a [fleet.Answer] does.
func addresses(tasks []*fleet.Task) string {
	var all []string
	for _, t := range tasks {
		all = append(all, t.Addr.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
