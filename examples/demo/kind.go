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

// printKinds prints the kinds of hosts whose programs are installed, and says why
// the others are left out.
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
func (s *stage) addHost(name string) (*rig.Host, error) {
	if s.kind == "" {
		return s.fleet.Rig.AddHost(name)
	}
	kind, err := hostkind.Named(s.kind)
	if err != nil {
		return nil, err
	}
	return kind.AddHost(s.fleet.Rig, name)
}

// followDoctor runs the doctor on each host and types the commands that it gives,
// until it finds nothing. Prepared hosts need no doctor.
func (s *stage) followDoctor() error {
	if s.kind == "" {
		return nil
	}
	_, err := s.until(func() error {
		var errs []error
		for _, n := range s.nodes {
			errs = append(errs, s.followDoctorOn(n))
		}
		return errors.Join(errs...)
	})
	return err
}

// followDoctorOn runs the doctor on one host once. It leaves out the command to
// join: a node that has joined no other goes on trying by itself.
func (s *stage) followDoctorOn(n *fleet.Node) error {
	diagnosis, err := n.API.Doctor(s.ctx)
	if err != nil {
		return err
	}
	var left []string
	for _, f := range diagnosis.Findings {
		left = append(left, f.What)
		if f.Command == "" || strings.HasPrefix(f.Command, "meshctl join") {
			continue
		}
		if err := s.typeCommand(n, f); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("%s: the doctor finds: %s", n.Host.Name, strings.Join(left, "; "))
	}
	return nil
}

// typeCommand types the command that mends a finding.
func (s *stage) typeCommand(n *fleet.Node, f control.HostFinding) error {
	begin := time.Now()
	if out, err := n.Host.Output("sh", "-ec", f.Command); err != nil {
		return fmt.Errorf("%s: %s: %w: %s", n.Host.Name, f.Command, err, out)
	}
	s.show(n.Host.Name+": meshctl doctor", f.Code+": typed "+f.Command, time.Since(begin))
	return nil
}
