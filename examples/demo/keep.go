//go:build linux

package main

import (
	"fmt"
	"os"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// printLookAround prints commands for another terminal.
func (d *demo) printLookAround(w rig.World) {
	fmt.Fprintf(d.out, "\nThe hosts stay up until Ctrl-C. In another terminal:\n\n")
	for _, n := range d.nodes {
		if n.Proc == nil {
			continue
		}
		fmt.Fprintf(d.out, "  # %s\n", n.Host.Name)
		fmt.Fprintf(d.out, "  %s --socket %s service ps %s --network %s\n", d.fleet.Meshctl, n.Socket, app, network)
		fmt.Fprintf(d.out, "  %s ip route; less %s\n", enter(w, n.Proc), n.Proc.Log)
	}
	if len(d.apps) > 0 {
		d.printInTask(w, d.apps[0])
	}
	fmt.Fprintln(d.out)
}

func (d *demo) printInTask(w rig.World, t *fleet.Task) {
	in := enter(w, t.Server)
	fmt.Fprintf(d.out, "  # inside %s.%d on %s\n", t.Service, t.Slot, t.Node.Host.Name)
	fmt.Fprintf(d.out, "  %s dig @%s %s\n", in, t.DNS().Addr(), app)
	fmt.Fprintf(d.out, "  %s curl http://%s/\n", in, d.vip)
}

// enter returns a command prefix that enters the network namespace of a process
// of the rig. Its process id is valid only in the rig's own /proc.
func enter(w rig.World, p *rig.Proc) string {
	user := ""
	if !ownsMachine() {
		user = fmt.Sprintf(" --user=/proc/%s/ns/user --preserve-credentials", w.OuterPID)
	}
	return fmt.Sprintf("nsenter%s --net=/proc/%s/root/proc/%d/ns/net", user, w.OuterPID, p.PID)
}

// ownsMachine reports whether the rig runs as root of the machine, not in a user
// namespace: only in the former are all user ids mapped.
func ownsMachine() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	var inner, outer, count uint32
	_, scanErr := fmt.Sscan(string(text), &inner, &outer, &count)
	return err == nil && scanErr == nil && count > 1
}
