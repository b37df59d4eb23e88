//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
)

// balance sends requests over TCP, and datagrams, to the VIP.
func (d *demo) balance() error {
	if _, err := d.until(func() error { return d.balancersKnow(d.apps) }); err != nil {
		return err
	}
	for _, from := range d.apps {
		if err := d.spread(from, 12, d.apps); err != nil {
			return err
		}
	}
	host := d.nodes[0].Host // by its own load balancer, which tasks without a sandbox use as well
	if err := d.spreadFrom(host.Namespace, host.Name+" itself", 12, d.apps); err != nil {
		return err
	}
	from, begin := d.dbs[0], time.Now()
	count, err := fleet.Spread(12, func() (string, error) { return from.Echo(d.ctx, d.vip) })
	if err != nil {
		return err
	}
	d.show(fmt.Sprintf("%s: 12 × a datagram to %s", where(from), d.vip), counts(count, d.apps), time.Since(begin))
	return checkShares(count, 12, d.apps)
}

// balancersKnow checks that the load balancers of every running host, and those in
// the sandboxes of the application's tasks, hold exactly the given tasks in the
// kernel.
func (d *demo) balancersKnow(tasks []*fleet.Task) error {
	for _, from := range d.apps {
		if err := d.balances(from, tasks); err != nil {
			return err
		}
	}
	return nil
}

// balances checks the load balancers of a task's host and of its sandbox.
func (d *demo) balances(at *fleet.Task, tasks []*fleet.Task) error {
	return errors.Join(d.balancerKnows(at.Node, "", tasks), d.balancerKnows(at.Node, at.Box, tasks))
}

// balancerKnows checks the load balancer of a sandbox of the node, or the host's.
func (d *demo) balancerKnows(n *fleet.Node, box string, tasks []*fleet.Task) error {
	table, err := n.API.LB(d.ctx, control.LBRequest{Network: network, Sandbox: box})
	if err != nil {
		return err
	}
	var want, got []string
	for _, t := range tasks {
		want = append(want, t.ID)
	}
	for _, s := range table.Services {
		if s.Service == app && strings.HasSuffix(s.Port, "tcp") {
			got = append(got, serving(s)...)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return fmt.Errorf("the load balancer of %s %s sends to %v, want %v", n.Host.Name, box, got, want)
	}
	return nil
}

func serving(s control.LBService) []string {
	var ids []string
	for _, b := range s.Backends {
		if b.Actual > 0 {
			ids = append(ids, b.Task)
		}
	}
	return ids
}
