//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
	"meshd/test/rig"
)

const (
	network = "collabnet"
	pool    = "10.96.0.0/16"
	app     = "wordpressapp"
	db      = "wordpressdb"
)

// settle bounds each wait for the mesh to agree; a host's death is noticed
// after some seconds.
const settle = 45 * time.Second

// demo is the state that the steps hand on to each other.
type demo struct {
	ctx   context.Context
	out   io.Writer
	fleet *fleet.Fleet
	dir   string

	kind   string // of the hosts; empty: prepared for the demo
	driver string // the load balancer of the first host; the others have the same
	shown  bool   // what the kernel holds was printed

	nodes []*fleet.Node
	apps  []*fleet.Task // the tasks of wordpressapp, by slot
	dbs   []*fleet.Task
	other *fleet.Task // on another network
	vip   netip.Addr  // of wordpressapp

	boxes map[string]*fleet.Task // every task that was attached, by its sandbox
}

// step is one scene.
type step struct {
	name, title string
	run         func(*demo) error
}

func steps() []step {
	return []step{
		{"hosts", "three hosts, a meshd on each; gossip is encrypted", (*demo).hosts},
		{"network", "the network " + network + ", and another beside it", (*demo).network},
		{"services", "wordpressdb and wordpressapp, their tasks spread over the hosts", (*demo).services},
		{"sandboxes", "each task has a name server and a load balancer of its own", (*demo).sandboxes},
		{"names", "what names resolve to, asked from inside tasks at 127.0.0.11", (*demo).names},
		{"scope", "nothing resolves across networks", (*demo).scope},
		{"balance", "requests to the VIP from a task on each host, and from a host, counted per task", (*demo).balance},
		{"scale", "scale out to five tasks, and back to three", (*demo).scale},
		{"dnsrr", "a service in dnsrr mode: no VIP, its name is its tasks", (*demo).dnsrr},
		{"replace", "every task of wordpressapp replaced: the VIP stays", (*demo).replace},
		{"kill", "host3 loses its power", (*demo).kill},
		{"return", "host3 comes back, and nobody registers anything anew", (*demo).comeBack},
		{"partition", "host3 is cut off from the two others, and lives on", (*demo).partition},
		{"heal", "the cut is healed: all three tables are equal again", (*demo).heal},
	}
}

// play runs the steps up to the first that fails and returns its name.
func (d *demo) play() (failed string) {
	start := time.Now()
	for i, s := range steps() {
		fmt.Fprintf(d.out, "\n%2d. %-10s %s\n", i+1, s.name, s.title)
		err := s.run(d)
		if err == nil {
			err = d.kernelAgrees()
		}
		if err != nil {
			fmt.Fprintf(d.out, "\n    failed: %v\n", err)
			d.printLogs()
			return s.name
		}
	}
	on := ""
	if d.kind != "" {
		on = ", on hosts of kind " + d.kind
	}
	fmt.Fprintf(d.out, "\n%d steps in %.1f s, lb=%s%s\n", len(steps()), time.Since(start).Seconds(), d.driver, on)
	return ""
}

func (d *demo) printLogs() {
	for _, n := range d.nodes {
		if n.Proc != nil {
			fmt.Fprintf(d.out, "\n    the log of meshd on %s ends:\n%s\n", n.Host.Name, fleet.Tail(n.Proc.Log, 12))
		}
	}
}

// show prints one exchange: what was asked, what came back, how long it took.
func (d *demo) show(asked, received string, took time.Duration) {
	fmt.Fprintf(d.out, "    %-62s → %s  (%s)\n", asked, received, short(took))
}

// short rounds a duration to what a reader wants to know.
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
func (d *demo) until(check func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(d.ctx, rig.Patience(settle))
	defer cancel()
	start := time.Now()
	err := rig.Poll(ctx, check)
	if err != nil {
		err = fmt.Errorf("after %s: %w", short(time.Since(start)), err)
	}
	return time.Since(start), err
}

// resolve asks for a name inside a task, prints the exchange, and fails if the
// answer is not the wanted one.
func (d *demo) resolve(from *fleet.Task, name string, qtype uint16, want string) error {
	a, err := from.Resolve(d.ctx, name, qtype)
	if err != nil {
		return err
	}
	d.show(fmt.Sprintf("%s: %s %s?", where(from), name, dns.TypeToString[qtype]), a.String(), a.Took)
	if a.String() != want {
		return fmt.Errorf("%s %s: got %s, want %s", name, dns.TypeToString[qtype], a, want)
	}
	return nil
}

// where names a task for people: its host and service.
func where(t *fleet.Task) string {
	return fmt.Sprintf("%s, in %s.%d", t.Node.Host.Name, t.Service, t.Slot)
}

// seen checks that a name resolves to exactly the addresses of the tasks, as
// seen from inside from.
func (d *demo) seen(from *fleet.Task, name string, tasks []*fleet.Task) error {
	a, err := from.Resolve(d.ctx, name, dns.TypeA)
	if err != nil {
		return err
	}
	if want := addresses(tasks); a.String() != want {
		return fmt.Errorf("%s: %s is %s, want %s", where(from), name, a, want)
	}
	return nil
}

// addresses are those of the tasks, in the form of an [fleet.Answer].
func addresses(tasks []*fleet.Task) string {
	var all []string
	for _, t := range tasks {
		all = append(all, t.Addr.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// spread sends n requests to the VIP from inside a task and wants them to be
// shared evenly by exactly the given tasks.
func (d *demo) spread(from *fleet.Task, n int, tasks []*fleet.Task) error {
	return d.spreadFrom(from.Namespace, where(from), n, tasks)
}

// spreadFrom is spread from inside any namespace.
func (d *demo) spreadFrom(ns *rig.Namespace, name string, n int, tasks []*fleet.Task) error {
	start := time.Now()
	count, err := fleet.Spread(n, func() (string, error) { return fleet.Get(d.ctx, ns, d.vip) })
	if err != nil {
		return err
	}
	d.show(fmt.Sprintf("%s: %d × GET http://%s/", name, n, d.vip), counts(count, tasks), time.Since(start))
	return even(count, n, tasks)
}

// even wants each task to have served its share, give or take one, and no
// other to have served any.
func even(count map[string]int, n int, tasks []*fleet.Task) error {
	share := n / len(tasks)
	total := 0
	for _, t := range tasks {
		if got := count[t.ID]; got < share-1 || got > share+1 {
			return fmt.Errorf("task %s served %d of %d requests, want %d", t.ID, got, n, share)
		}
		total += count[t.ID]
	}
	if total != n {
		return fmt.Errorf("others than the tasks served %d requests: %v", n-total, count)
	}
	return nil
}

// counts prints how many requests each task served, by slot.
func counts(count map[string]int, tasks []*fleet.Task) string {
	rest := maps.Clone(count)
	var parts []string
	for _, t := range tasks {
		parts = append(parts, fmt.Sprintf(".%d: %d", t.Slot, count[t.ID]))
		delete(rest, t.ID)
	}
	for id, n := range rest {
		parts = append(parts, fmt.Sprintf("other %s: %d", id, n))
	}
	return strings.Join(parts, ", ")
}

// start runs a task on a node and prints the command that attached it.
func (d *demo) start(n *fleet.Node, service string, slot int, mode string) (*fleet.Task, error) {
	s := fleet.Spec{Network: network, Service: service, Slot: slot, ID: newID(), Mode: mode, Sandbox: true}
	return d.startSpec(n, s)
}

func (d *demo) startSpec(n *fleet.Node, s fleet.Spec) (*fleet.Task, error) {
	begin := time.Now()
	t, err := n.Run(d.ctx, s)
	if err != nil {
		return nil, err
	}
	if d.boxes == nil {
		d.boxes = map[string]*fleet.Task{}
	}
	d.boxes[t.Box] = t
	asked := fmt.Sprintf("%s: sandbox attach --netns … --service %s --slot %d", n.Host.Name, s.Service, s.Slot)
	d.show(asked, fmt.Sprintf("task %s at %s", s.ID, t.Addr), time.Since(begin))
	return t, nil
}

// newID makes an id such as an orchestrator gives to a task.
func newID() string {
	const letters = 12
	id := strconv.FormatUint(rand.Uint64()|1<<63, 36)
	return id[len(id)-letters:]
}
