//go:build linux

package main

import (
	"errors"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
)

// kill ends every process on host3 at once and pulls its cable.
func (d *demo) kill() error {
	lost := d.nodes[2]
	begin := time.Now()
	if err := lost.Host.LinkDown("eth0"); err != nil {
		return err
	}
	lost.Proc.Kill()
	d.apps[2].Server.Kill()
	d.other.Server.Kill()
	d.show("host3: everything on it is killed, its cable pulled", "silence", time.Since(begin))

	if _, err := d.until(func() error { return d.survivors(d.resolvesApp) }); err != nil {
		return err
	}
	d.show("host1, host2: tasks."+app+" A?", addresses(d.apps[:2]), time.Since(begin))
	if _, err := d.until(func() error { return d.survivors(d.balances) }); err != nil {
		return err
	}
	d.show("host1, host2 and their sandboxes: the load balancer?", "the two tasks that live", time.Since(begin))
	return d.spread(d.apps[0], 12, d.apps[:2])
}

// survivors makes a check on host1 and host2.
func (d *demo) survivors(check func(at *fleet.Task, tasks []*fleet.Task) error) error {
	return errors.Join(check(d.apps[0], d.apps[:2]), check(d.apps[1], d.apps[:2]))
}

// resolvesApp checks that the application's tasks are the given ones, by DNS
// inside a task.
func (d *demo) resolvesApp(at *fleet.Task, tasks []*fleet.Task) error {
	return d.resolvesTo(at, "tasks."+app, tasks)
}

// comeBack starts host3 again, with the data that it had.
func (d *demo) comeBack() error {
	back := d.nodes[2]
	if err := back.Host.LinkUp("eth0"); err != nil {
		return err
	}
	if err := errors.Join(d.apps[2].Serve(d.ctx), d.other.Serve(d.ctx)); err != nil {
		return err
	}
	begin := time.Now()
	if err := back.Start(d.ctx); err != nil {
		return err
	}
	d.show("host3: the servers and meshd start again", "up, and goes on with its sandboxes", time.Since(begin))
	if err := d.untilAgreed("three tasks", d.apps); err != nil {
		return err
	}
	if err := d.resolve(d.apps[2], app, dns.TypeA, d.vip.String()); err != nil {
		return err
	}
	return d.spread(d.apps[2], 12, d.apps)
}

// partition cuts host3 off; both sides go on and change their tables.
func (d *demo) partition() error {
	begin := time.Now()
	if err := d.fleet.Rig.Partition(d.nodes[2].Host); err != nil {
		return err
	}
	d.show("host3 | host1, host2: every packet is dropped", "cut", time.Since(begin))
	alone := d.apps[2:3]
	_, err := d.until(func() error { return errors.Join(d.survivors(d.resolvesApp), d.resolvesApp(d.apps[2], alone)) })
	if err != nil {
		return err
	}
	d.show("host1, host2: tasks."+app+" A?", addresses(d.apps[:2]), time.Since(begin))
	d.show("host3: tasks."+app+" A?", addresses(alone), time.Since(begin))
	_, err = d.until(func() error { return errors.Join(d.survivors(d.balances), d.balances(d.apps[2], alone)) })
	if err != nil {
		return err
	}
	if err := errors.Join(d.spread(d.apps[0], 12, d.apps[:2]), d.spread(d.apps[2], 4, alone)); err != nil {
		return err
	}
	return d.changeBothSides()
}

// changeBothSides starts a task on each side of the cut.
func (d *demo) changeBothSides() error {
	for i, n := range []*fleet.Node{d.nodes[0], d.nodes[2]} {
		t, err := d.start(n, app, 4+i, "")
		if err != nil {
			return err
		}
		d.apps = append(d.apps, t)
	}
	return nil
}

// heal mends the network and compares the tables.
func (d *demo) heal() error {
	if err := d.fleet.Rig.HealAll(); err != nil {
		return err
	}
	if err := d.untilAgreed("five tasks", d.apps); err != nil {
		return err
	}
	n := d.nodes[0]
	took, err := d.until(func() error { return n.Equal(d.ctx, len(d.nodes)) })
	if err != nil {
		return err
	}
	d.show("host1: meshctl diff", "equal", took)
	if err := d.printCtl(n, "diff"); err != nil {
		return err
	}
	if err := d.resolve(d.apps[2], app, dns.TypeA, d.vip.String()); err != nil {
		return err
	}
	return d.spread(d.apps[2], 15, d.apps)
}
