//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/rig"
)

// servers are the weights of real servers.
type servers map[netip.AddrPort]int

// reals is what IPVS holds, or should hold, in one network namespace.
type reals struct {
	named map[string]servers // by protocol and address of the virtual service, as ipvsadm prints them

	// A service for all ports of a VIP is known to IPVS by a firewall mark, which
	// only the rules of nftables relate to the VIP. Such services are counted, and
	// the weights of their real servers added up.
	marks  int
	marked servers
}

func newReals() reals { return reals{named: map[string]servers{}, marked: servers{}} }

// size is the number of virtual services and of real servers.
func (r reals) size() (services, reals int) {
	for _, s := range r.named {
		reals += len(s)
	}
	return len(r.named) + r.marks, reals + len(r.marked)
}

// ipvsCheck compares the kernel with what meshd says it should hold, where the
// driver is IPVS. It reads the kernel with ipvsadm, not with code of meshd.
type ipvsCheck struct {
	*stage
	listed bool // what ipvsadm prints on the first host was shown
}

// compareHosts compares the kernel of every host that runs and of every sandbox
// there. The first time, it shows what ipvsadm prints.
func (c *ipvsCheck) compareHosts() error {
	if c.driver != "ipvs" {
		return nil
	}
	if _, err := exec.LookPath("ipvsadm"); err != nil {
		c.show("every host and sandbox: ipvsadm -Ln", "not compared: ipvsadm is not installed", 0)
		c.driver += ", not compared with ipvsadm"
		return nil
	}
	var services, all int
	took, err := c.until(func() error {
		services, all = 0, 0
		return c.everyNode(func(n *fleet.Node) error {
			if !running(n) {
				return nil
			}
			v, r, err := c.compareNode(n)
			services, all = services+v, all+r
			return err
		})
	})
	if err != nil || services == 0 {
		return err
	}
	c.show("every host and sandbox: ipvsadm -Ln", fmt.Sprintf("%d virtual services, %d real servers, as in the table",
		services, all), took)
	return c.printOnce(c.nodes[0].Host.Namespace)
}

// running reports whether a node's daemon has not been killed.
func running(n *fleet.Node) bool {
	select {
	case <-n.Proc.Done():
		return false
	default:
		return true
	}
}

// printOnce prints what ipvsadm prints, the first time.
func (c *ipvsCheck) printOnce(ns *rig.Namespace) error {
	if c.listed {
		return nil
	}
	c.listed = true
	text, err := ns.Output("ipvsadm", "-Ln")
	for line := range strings.Lines(string(text)) {
		fmt.Fprint(c.out, "        ", line)
	}
	return err
}

// compareNode compares the host of a node and its sandboxes.
func (c *ipvsCheck) compareNode(n *fleet.Node) (services, servers int, err error) {
	where := map[string]*rig.Namespace{"": n.Host.Namespace}
	boxes, err := n.API.Sandboxes(c.ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, b := range boxes {
		if t := c.boxes[b.Name]; t != nil {
			where[b.Name] = t.Namespace
		}
	}
	var errs []error
	for box, ns := range where {
		held, err := c.compare(n, box, ns)
		v, r := held.size()
		services, servers = services+v, servers+r
		errs = append(errs, err)
	}
	return services, servers, errors.Join(errs...)
}

// compare compares the kernel in a namespace with the table of the sandbox
// there, or of the host.
func (c *ipvsCheck) compare(n *fleet.Node, box string, ns *rig.Namespace) (reals, error) {
	text, err := ns.Output("ipvsadm", "-Ln")
	if err != nil {
		return reals{}, err
	}
	held, err := parseIPVS(string(text))
	if err != nil {
		return reals{}, err
	}
	table, err := n.API.LB(c.ctx, control.LBRequest{Sandbox: box})
	if err != nil {
		return reals{}, err
	}
	if err := differ(wanted(table.Services), held); err != nil {
		return reals{}, fmt.Errorf("IPVS of %s %s: %w", n.Host.Name, box, err)
	}
	return held, nil
}

// wanted returns what IPVS should hold by the table.
func wanted(services []control.LBService) reals {
	want := newReals()
	for _, s := range services {
		into := want.marked
		if port, proto, _ := strings.Cut(s.Port, "/"); port == "all" {
			want.marks++
		} else {
			number, _ := strconv.ParseUint(port, 10, 16)
			into = want.service(strings.ToUpper(proto), netip.AddrPortFrom(s.VIP, uint16(number)).String())
		}
		for _, b := range s.Backends {
			if b.Desired >= 0 {
				into[b.Address] += b.Desired
			}
		}
	}
	return want
}

// service adds a virtual service without real servers, and returns those to come.
func (r reals) service(proto, addr string) servers {
	s := servers{}
	r.named[proto+" "+addr] = s
	return s
}

// differ returns an error for each difference between what is held and wanted.
func differ(want, held reals) error {
	errs := []error{differServers("by mark", want.marked, held.marked)}
	if want.marks != held.marks {
		errs = append(errs, fmt.Errorf("%d services by mark, want %d", held.marks, want.marks))
	}
	for _, name := range slices.Sorted(maps.Keys(want.named)) {
		if s, ok := held.named[name]; ok {
			errs = append(errs, differServers(name, want.named[name], s))
		} else {
			errs = append(errs, fmt.Errorf("%s is missing", name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(held.named)) {
		if _, ok := want.named[name]; !ok {
			errs = append(errs, fmt.Errorf("%s should not be there", name))
		}
	}
	return errors.Join(errs...)
}

// differServers compares the real servers of one virtual service. One of weight 0
// may be left until its connections have ended.
func differServers(service string, want, held servers) error {
	var errs []error
	for at, weight := range want {
		if got, ok := held[at]; !ok {
			errs = append(errs, fmt.Errorf("%s: real server %s is missing", service, at))
		} else if got != weight {
			errs = append(errs, fmt.Errorf("%s: real server %s has weight %d, want %d", service, at, got, weight))
		}
	}
	for at, weight := range held {
		if _, ok := want[at]; !ok && weight > 0 {
			errs = append(errs, fmt.Errorf("%s: real server %s of weight %d should not be there", service, at, weight))
		}
	}
	return errors.Join(errs...)
}

// parseIPVS reads what ipvsadm -Ln prints.
func parseIPVS(text string) (reals, error) {
	held := newReals()
	var into servers // of the service last read; nil in the heading
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 2 && slices.Contains([]string{"TCP", "UDP", "SCTP"}, f[0]):
			into = held.service(f[0], f[1])
		case len(f) >= 2 && f[0] == "FWM":
			held.marks++
			into = held.marked
		case len(f) >= 4 && f[0] == "->" && into != nil:
			at, err := netip.ParseAddrPort(f[1])
			if err != nil {
				return reals{}, fmt.Errorf("ipvsadm: %w in %q", err, line)
			}
			weight, err := strconv.Atoi(f[3])
			if err != nil {
				return reals{}, fmt.Errorf("ipvsadm: weight in %q: %w", line, err)
			}
			into[at] += weight
		}
	}
	return held, nil
}
