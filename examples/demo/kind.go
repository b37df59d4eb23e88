//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/hostkind"
	"meshd/test/rig"
)

// printKinds prints the kinds of hosts whose programs are there, and why the others
// are left out.
func printKinds() {
	for _, k := range hostkind.All() {
		if err := k.Missing(); err != nil {
			fmt.Fprintln(os.Stderr, "left out:", err)
			continue
		}
		fmt.Println(k.Name)
	}
}

// addHost makes a host: a prepared one, or one of the kind that was asked for.
func (d *demo) addHost(name string) (*rig.Host, error) {
	if d.kind == "" {
		return d.fleet.Rig.AddHost(name)
	}
	kind, err := hostkind.Named(d.kind)
	if err != nil {
		return nil, err
	}
	return kind.AddHost(d.fleet.Rig, name)
}

// heed has the doctor look at each host, and types what it says, until it finds
// nothing. Hosts that are prepared need none.
func (d *demo) heed() error {
	if d.kind == "" {
		return nil
	}
	_, err := d.until(func() error {
		var errs []error
		for _, n := range d.nodes {
			errs = append(errs, d.heedOn(n))
		}
		return errors.Join(errs...)
	})
	return err
}

// heedOn is heed for one look at one host. A node that has joined nobody goes on
// trying by itself.
func (d *demo) heedOn(n *fleet.Node) error {
	diagnosis, err := n.API.Doctor(d.ctx)
	if err != nil {
		return err
	}
	var left []string
	for _, f := range diagnosis.Findings {
		left = append(left, f.What)
		if f.Command == "" || strings.HasPrefix(f.Command, "meshctl join") {
			continue
		}
		if err := d.typed(n, f); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("%s: the doctor finds: %s", n.Host.Name, strings.Join(left, "; "))
	}
	return nil
}

// typed types what the doctor says against one finding.
func (d *demo) typed(n *fleet.Node, f control.HostFinding) error {
	begin := time.Now()
	if out, err := n.Host.Output("sh", "-ec", f.Command); err != nil {
		return fmt.Errorf("%s: %s: %w: %s", n.Host.Name, f.Command, err, out)
	}
	d.show(n.Host.Name+": meshctl doctor", f.Code+": typed "+f.Command, time.Since(begin))
	return nil
}
