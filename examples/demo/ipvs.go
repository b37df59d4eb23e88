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

	// Services for all ports of a VIP, as one without tasks, are held by a
	// firewall mark that only the rules of nftables translate: they are counted,
	// and their real servers' weights added up.
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

// kernelAgrees checks, where the driver is IPVS, that what ipvsadm reads out of
// the kernel of every host that runs, and of every sandbox there, is what meshd
// says it should hold. The first time, it shows what ipvsadm prints.
func (d *demo) kernelAgrees() error {
	if d.driver != "ipvs" {
		return nil
	}
	if _, err := exec.LookPath("ipvsadm"); err != nil {
		d.show("every host and sandbox: ipvsadm -Ln", "not compared: ipvsadm is not installed", 0)
		d.driver += ", not compared with ipvsadm"
		return nil
	}
	var services, all int
	took, err := d.until(func() error {
		services, all = 0, 0
		return d.everyNode(func(n *fleet.Node) error {
			if !running(n) {
				return nil
			}
			v, r, err := d.compareAll(n)
			services, all = services+v, all+r
			return err
		})
	})
	if err != nil || services == 0 {
		return err
	}
	d.show("every host and sandbox: ipvsadm -Ln", fmt.Sprintf("%d virtual services, %d real servers, as in the table",
		services, all), took)
	return d.showIPVS(d.nodes[0].Host.Namespace)
}

// running tells whether a node's daemon has not been killed.
func running(n *fleet.Node) bool {
	select {
	case <-n.Proc.Done():
		return false
	default:
		return true
	}
}

// showIPVS prints what ipvsadm prints, once.
func (d *demo) showIPVS(ns *rig.Namespace) error {
	if d.shown {
		return nil
	}
	d.shown = true
	text, err := ns.Output("ipvsadm", "-Ln")
	for line := range strings.Lines(string(text)) {
		fmt.Fprint(d.out, "        ", line)
	}
	return err
}

// compareAll compares the host of a node and its sandboxes.
func (d *demo) compareAll(n *fleet.Node) (services, servers int, err error) {
	where := map[string]*rig.Namespace{"": n.Host.Namespace}
	boxes, err := n.API.Sandboxes(d.ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, b := range boxes {
		if t := d.boxes[b.Name]; t != nil {
			where[b.Name] = t.Namespace
		}
	}
	var errs []error
	for box, ns := range where {
		held, err := d.compare(n, box, ns)
		v, r := held.size()
		services, servers = services+v, servers+r
		errs = append(errs, err)
	}
	return services, servers, errors.Join(errs...)
}

// compare compares the kernel in a namespace with the table of the sandbox
// there, or of the host.
func (d *demo) compare(n *fleet.Node, box string, ns *rig.Namespace) (reals, error) {
	text, err := ns.Output("ipvsadm", "-Ln")
	if err != nil {
		return reals{}, err
	}
	held, err := parseIPVS(string(text))
	if err != nil {
		return reals{}, err
	}
	table, err := n.API.LB(d.ctx, control.LBRequest{Sandbox: box})
	if err != nil {
		return reals{}, err
	}
	if err := differ(wanted(table.Services), held); err != nil {
		return reals{}, fmt.Errorf("IPVS of %s %s: %w", n.Host.Name, box, err)
	}
	return held, nil
}

// wanted is what the table asks IPVS to hold.
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

// service starts a virtual service without real servers.
func (r reals) service(proto, addr string) servers {
	s := servers{}
	r.named[proto+" "+addr] = s
	return s
}

// differ tells how what is held differs from what is wanted.
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

// differServers compares those of one virtual service. One of weight 0 may stay
// while its connections end.
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
