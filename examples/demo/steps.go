//go:build linux

package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/rig"
)

// hosts makes the hosts and waits until every daemon knows the others.
func (d *demo) hosts() error {
	var first *rig.Host
	for i := range 3 {
		h, err := d.addHost(fmt.Sprintf("host%d", i+1))
		if err != nil {
			return err
		}
		var join []*rig.Host
		if first == nil {
			first = h
		} else {
			join = append(join, first)
		}
		n := d.fleet.AddNode(h, nil, join...)
		d.nodes = append(d.nodes, n)
		begin := time.Now()
		if err := n.Start(d.ctx); err != nil {
			return err
		}
		d.show(fmt.Sprintf("%s: meshd --node %s --bind %s …", h.Name, h.Name, h.Addr), "up", time.Since(begin))
	}
	if err := d.followDoctor(); err != nil {
		return err
	}
	took, err := d.until(func() error { return d.everyNode(func(n *fleet.Node) error { return n.Members(d.ctx, 3) }) })
	if err != nil {
		return err
	}
	s, err := d.nodes[0].API.Status(d.ctx)
	if err != nil {
		return err
	}
	d.driver = s.LBDriver
	d.show("every host: members?", fmt.Sprintf("3 alive; load balancer: %s", s.LBDriver), took)
	return nil
}

// network creates the two networks, each on one host only.
func (d *demo) network() error {
	for i, c := range [][2]string{{network, pool}, {"othernet", "10.97.0.0/16"}} {
		n := d.nodes[i]
		begin := time.Now()
		if _, err := n.Ctl("network", "create", c[0], "--subnet", c[1]); err != nil {
			return err
		}
		d.show(fmt.Sprintf("%s: meshctl network create %s --subnet %s", n.Host.Name, c[0], c[1]), "created",
			time.Since(begin))
	}
	took, err := d.until(func() error { return d.everyNode(d.knowsNetworks) })
	d.show("every host: meshctl network ls", network+", othernet", took)
	return err
}

func (d *demo) knowsNetworks(n *fleet.Node) error {
	all, err := n.API.Networks(d.ctx)
	if err == nil && len(all) != 2 {
		err = fmt.Errorf("%s knows %d networks, not 2", n.Host.Name, len(all))
	}
	return err
}

// services starts two tasks of the data base and three of the application.
func (d *demo) services() error {
	for i, n := range d.nodes[:2] {
		t, err := d.start(n, db, i+1, "")
		if err != nil {
			return err
		}
		d.dbs = append(d.dbs, t)
	}
	for i, n := range d.nodes {
		t, err := d.start(n, app, i+1, "")
		if err != nil {
			return err
		}
		d.apps = append(d.apps, t)
	}
	if err := d.followDoctor(); err != nil {
		return err
	}
	took, err := d.until(func() error { return d.everyApp(d.apps) })
	d.show("every host: are all tasks of wordpressapp known?", "yes", took)
	return err
}

// sandboxes lists those of the first host, and what balances in all of them.
func (d *demo) sandboxes() error {
	used := map[string]int{}
	took, err := d.until(func() error {
		clear(used)
		return d.everyNode(func(n *fleet.Node) error {
			all, err := n.API.Sandboxes(d.ctx)
			for _, b := range all {
				if used[b.LBDriver]++; b.State != control.SandboxReady {
					return fmt.Errorf("%s: sandbox %s is %s: %v", n.Host.Name, b.Name, b.State, b.Problems)
				}
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	for _, driver := range slices.Sorted(maps.Keys(used)) {
		d.show("every host: sandboxes?", fmt.Sprintf("%d ready; load balancer in them: %s", used[driver], driver), took)
	}
	if len(used) != 1 || used[d.driver] != len(d.boxes) {
		return fmt.Errorf("%d sandboxes use %v, the hosts %s", len(d.boxes), used, d.driver)
	}
	return d.printCtl(d.nodes[0], "sandbox", "ls")
}

// everyApp checks that each task of the application sees exactly those tasks.
func (d *demo) everyApp(tasks []*fleet.Task) error {
	for _, from := range d.apps {
		if err := d.resolvesTo(from, "tasks."+app, tasks); err != nil {
			return err
		}
	}
	return nil
}

// names resolves every form of name.
func (d *demo) names() error {
	if err := d.learnVIP(); err != nil {
		return err
	}
	third := d.apps[2]
	from := d.dbs[0]
	for _, q := range []struct {
		from  *fleet.Task
		name  string
		qtype uint16
		want  string
	}{
		{d.apps[0], app, dns.TypeA, d.vip.String()},
		{d.apps[1], app, dns.TypeA, d.vip.String()},
		{d.apps[2], "WordPressApp", dns.TypeA, d.vip.String()},
		{from, "tasks." + app, dns.TypeA, addresses(d.apps)},
		{from, fmt.Sprintf("%s.%d.%s", app, third.Slot, third.ID), dns.TypeA, third.Addr.String()},
		{from, app + "." + network, dns.TypeA, d.vip.String()},
		{from, app + "." + network + ".mesh.internal", dns.TypeA, d.vip.String()},
		{from, app, dns.TypeAAAA, "NODATA"},
	} {
		if err := d.resolve(q.from, q.name, q.qtype, q.want); err != nil {
			return err
		}
	}
	return nil
}

// learnVIP asks for the application until every host answers with one address
// of the pool: a host does so as soon as its load balancer is ready.
func (d *demo) learnVIP() error {
	_, err := d.until(func() error {
		for _, from := range d.apps {
			a, err := from.Resolve(d.ctx, app, dns.TypeA)
			if err != nil {
				return err
			}
			if d.vip, err = netip.ParseAddr(a.String()); err != nil || !netip.MustParsePrefix(pool).Contains(d.vip) {
				return fmt.Errorf("%s: %s is %s: not one address of the pool %s", where(from), app, a, pool)
			}
		}
		return nil
	})
	return err
}

// scope starts a service on the other network and asks across.
func (d *demo) scope() (err error) {
	s := fleet.Spec{Network: "othernet", Service: "billing", Slot: 1, ID: newID(), Sandbox: true}
	if d.other, err = d.startSpec(d.nodes[2], s); err != nil {
		return err
	}
	if err := d.followDoctor(); err != nil {
		return err
	}
	var a fleet.Answer
	if _, err := d.until(func() error {
		a, err = d.other.Resolve(d.ctx, "billing", dns.TypeA)
		return hasData(a, err)
	}); err != nil {
		return err
	}
	for _, q := range []struct {
		from       *fleet.Task
		name, want string
	}{
		{d.other, "billing", a.String()},
		{d.apps[2], "billing", "NXDOMAIN"},
		{d.apps[2], "billing.othernet", "NXDOMAIN"},
		{d.apps[0], "billing.othernet.mesh.internal", "NXDOMAIN"},
		{d.other, app, "NXDOMAIN"},
	} {
		if err := d.resolve(q.from, q.name, dns.TypeA, q.want); err != nil {
			return err
		}
	}
	return nil
}

// hasData returns an error for an answer without data.
func hasData(a fleet.Answer, err error) error {
	if err == nil && len(a.Data) == 0 {
		err = fmt.Errorf("no answer but %s", a)
	}
	return err
}

// scale adds two tasks and takes them away again.
func (d *demo) scale() error {
	more := slices.Clone(d.apps)
	for i := range 2 {
		t, err := d.start(d.nodes[i], app, 4+i, "")
		if err != nil {
			return err
		}
		more = append(more, t)
	}
	if err := d.untilAgreed("five tasks", more); err != nil {
		return err
	}
	if err := d.spread(d.apps[2], 15, more); err != nil {
		return err
	}
	for _, t := range more[3:] {
		begin := time.Now()
		if err := t.Unregister(); err != nil {
			return err
		}
		d.show(fmt.Sprintf("%s: meshctl sandbox detach %s", t.Node.Host.Name, t.Box), "removed with its task",
			time.Since(begin))
	}
	if err := d.untilAgreed("three tasks", d.apps); err != nil {
		return err
	}
	return d.spread(d.apps[2], 12, d.apps)
}

// agreed waits until every host resolves and balances to exactly these tasks.
func (d *demo) untilAgreed(what string, tasks []*fleet.Task) error {
	inDNS, err := d.until(func() error { return d.everyApp(tasks) })
	if err != nil {
		return err
	}
	d.show("every host: tasks."+app+" A?", what, inDNS)
	inLB, err := d.until(func() error { return d.balancersKnow(tasks) })
	if err == nil {
		d.show("every host and sandbox: the load balancer?", what, inDNS+inLB)
	}
	return err
}

// dnsrr runs a service that is answered with its tasks.
func (d *demo) dnsrr() error {
	var caches []*fleet.Task
	for i, n := range d.nodes {
		t, err := d.start(n, "cache", i+1, "dnsrr")
		if err != nil {
			return err
		}
		caches = append(caches, t)
	}
	if _, err := d.until(func() error { return d.resolvesTo(d.apps[0], "cache", caches) }); err != nil {
		return err
	}
	err := d.resolve(d.apps[0], "cache", dns.TypeA, addresses(caches))
	for _, t := range caches {
		if err == nil {
			err = t.Unregister()
		}
	}
	if err != nil {
		return err
	}
	if _, err := d.until(func() error { return d.resolvesToNothing("cache") }); err != nil {
		return err
	}
	return d.resolve(d.apps[0], "cache", dns.TypeA, "NXDOMAIN")
}

func (d *demo) resolvesToNothing(name string) error {
	a, err := d.apps[0].Resolve(d.ctx, name, dns.TypeA)
	if err == nil && a.RCode != "NXDOMAIN" {
		err = fmt.Errorf("%s is still %s", name, a)
	}
	return err
}

// replace exchanges every task of the application, one after the other.
func (d *demo) replace() error {
	for i, old := range d.apps {
		t, err := d.start(old.Node, app, old.Slot, "")
		if err != nil {
			return err
		}
		if err := old.Unregister(); err != nil {
			return err
		}
		d.apps[i] = t
	}
	if err := d.untilAgreed("the three new tasks", d.apps); err != nil {
		return err
	}
	if err := d.resolve(d.dbs[0], app, dns.TypeA, d.vip.String()); err != nil {
		return err
	}
	return d.spread(d.apps[1], 12, d.apps)
}
