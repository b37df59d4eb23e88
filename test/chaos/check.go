//go:build linux

package chaos

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/control"
)

// check asks every node whether all is as the owners registered it.
func (c *cluster) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, m := range c.members {
		for _, check := range []func(context.Context, *member) error{
			c.checkMembers, c.checkTasks, c.checkServices,
			c.checkDNS, c.checkLB,
		} {
			if err := check(ctx, m); err != nil {
				return err
			}
		}
	}
	return c.members[c.result.Rounds%len(c.members)].equal(ctx, len(c.members))
}

func (c *cluster) checkMembers(ctx context.Context, m *member) error {
	return m.sees(ctx, len(c.members))
}

// equal compares the tables of all nodes.
func (m *member) equal(ctx context.Context, nodes int) error {
	d, err := m.API.Diff(ctx, control.DiffRequest{})
	if err != nil {
		return err
	}
	if !d.Equal {
		return fmt.Errorf("tables differ: %+v", d)
	}
	i := slices.IndexFunc(d.Networks, func(n control.NetworkDiff) bool { return n.Network == network })
	if i < 0 || len(d.Networks[i].Nodes) != nodes {
		return fmt.Errorf("network %s was not compared on %d nodes: %+v", network, nodes, d)
	}
	return nil
}

// checkTasks compares a node's table with what the owners registered.
func (c *cluster) checkTasks(ctx context.Context, m *member) error {
	ts, err := m.API.Tasks(ctx, control.TaskFilter{Network: network, All: true})
	if err != nil {
		return err
	}
	var got, want []string
	for _, t := range ts {
		got = append(got, fmt.Sprintf("%s %s %v %s %s", t.ID, t.Service, t.IPs, t.Node, t.State))
	}
	for _, e := range c.registered() {
		state := "serving"
		if e.status == draining {
			state = "draining"
		}
		want = append(want, fmt.Sprintf("%s %s [%s] %s %s", e.task.ID, e.task.Service, e.task.Addr, hostName(e.host), state))
	}
	if lacks, has := without(want, got), without(got, want); len(lacks)+len(has) > 0 {
		return fmt.Errorf("the table of %s lacks %q and has %q too much", m.Host.Name, lacks, has)
	}
	return nil
}

func (c *cluster) registered() []*entry {
	return c.book.all(func(e *entry) bool { return e.status == serving || e.status == draining })
}

// without returns what is in a and not in b.
func without(a, b []string) (out []string) {
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// checkServices demands one VIP per service, the same as ever, and one service
// per VIP.
func (c *cluster) checkServices(ctx context.Context, m *member) error {
	ss, err := m.API.Services(ctx, network)
	if err != nil {
		return err
	}
	owner := map[netip.Addr]string{}
	for _, s := range ss {
		if s.Mode != "vip" {
			continue
		}
		if len(s.VIPs) != 1 || s.Degraded != "" || s.Conflict != "" {
			return fmt.Errorf("on %s service %s has the VIPs %v, degraded %q, conflict %q", m.Host.Name, s.Name, s.VIPs,
				s.Degraded, s.Conflict)
		}
		vip := s.VIPs[0]
		if other := owner[vip]; other != "" {
			return fmt.Errorf("on %s %s is the VIP of %s and %s", m.Host.Name, vip, other, s.Name)
		}
		owner[vip] = s.Name
		if want := c.book.remember(s.Name, vip); want != vip {
			return fmt.Errorf("on %s the VIP of %s is %s and was %s", m.Host.Name, s.Name, vip, want)
		}
	}
	if len(owner) < 2 {
		return fmt.Errorf("%s knows %d VIPs, want those of %s and %s at least", m.Host.Name, len(owner), web, api)
	}
	return nil
}

// remember returns the service's VIP as first seen.
func (b *book) remember(service string, vip netip.Addr) netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.vips[service].IsValid() {
		b.vips[service] = vip
	}
	return b.vips[service]
}

// checkDNS asks inside a namespace of the host.
func (c *cluster) checkDNS(ctx context.Context, m *member) error {
	for _, service := range []string{web, api, names} {
		var tasks []string
		for _, e := range c.registered() {
			if e.task.Service == service && e.status == serving {
				tasks = append(tasks, e.task.Addr.String())
			}
		}
		slices.Sort(tasks)
		whole := tasks
		if service != names {
			whole = []string{c.book.vip(service).String()}
		}
		if err := cmp.Or(m.resolves(ctx, service, whole), m.resolves(ctx, "tasks."+service, tasks)); err != nil {
			return err
		}
	}
	return c.checkGone(ctx, m)
}

func (m *member) resolves(ctx context.Context, name string, want []string) error {
	a, err := m.client.Resolve(ctx, name, dns.TypeA)
	if err != nil {
		return err
	}
	if !slices.Equal(a.Data, want) {
		return fmt.Errorf("on %s %s is %s, want %v", m.Host.Name, name, a, want)
	}
	return nil
}

// checkGone asks for the names of the tasks that were removed last.
func (c *cluster) checkGone(ctx context.Context, m *member) error {
	removed := c.book.all(func(e *entry) bool { return e.status == gone })
	for _, e := range removed[max(0, len(removed)-5):] {
		name := fmt.Sprintf("%s.%d.%s", e.task.Service, e.task.Slot, e.task.ID)
		a, err := m.client.Resolve(ctx, name, dns.TypeA)
		if err != nil {
			return err
		}
		if a.RCode != "NXDOMAIN" {
			return fmt.Errorf("on %s %s, which was removed, is %s", m.Host.Name, name, a)
		}
	}
	return nil
}

// checkLB demands that the kernel has what the table says, and that VIPs lead
// to tasks.
func (c *cluster) checkLB(ctx context.Context, m *member) error {
	t, err := m.API.LB(ctx, control.LBRequest{Network: network})
	if err != nil {
		return err
	}
	if t.Driver == "none" {
		return nil
	}
	for _, s := range t.Services {
		if s.State != control.LBOK && s.State != control.LBDraining {
			return fmt.Errorf("on %s the load balancer's entry of %s %s is %s: %+v", m.Host.Name, s.Service, s.Port, s.State,
				s.Backends)
		}
	}
	for _, service := range []string{web, api} {
		if _, err := m.client.Get(ctx, c.book.vip(service)); err != nil {
			return err
		}
	}
	return nil
}
