//go:build linux

package main

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	"meshd/test/fleet"
	"meshd/test/rig"
)

const (
	network = "collabnet"
	pool    = "10.96.0.0/16"
	app     = "wordpressapp"
	db      = "wordpressdb"
)

// demo is the state that the steps hand on to each other.
type demo struct {
	*stage
	kernel ipvsCheck

	apps  []*fleet.Task // the tasks of wordpressapp, by slot
	dbs   []*fleet.Task // the tasks of wordpressdb, by slot
	other *fleet.Task   // on another network
	vip   netip.Addr    // of wordpressapp
}

// step is one scene of the demo.
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
			err = d.kernel.compareHosts()
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

// spread sends n requests to the VIP from inside a task, and checks that exactly
// the given tasks shared them evenly.
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
	return checkShares(count, n, tasks)
}

// checkShares checks that each task has served its share, give or take one, and
// that no other task has served any.
func checkShares(count map[string]int, n int, tasks []*fleet.Task) error {
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

// counts formats how many requests each task served, by slot.
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
