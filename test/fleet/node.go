//go:build linux

package fleet

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/test/rig"
)

// Node is a meshd on a host.
type Node struct {
	// How to reach it.

	Host    *rig.Host       // on which it runs
	Socket  string          // the path of its control socket
	DataDir string          // what survives a restart
	API     *control.Client // on Socket
	DNS     netip.AddrPort  // where it answers its tasks
	Proc    *rig.Proc       // the running daemon; Start replaces it

	// Its command line.

	fleet *Fleet         // whose programs and key it uses
	bind  netip.AddrPort // --bind, if not the host's address
	join  []string       // --join
	extra []string       // arguments after all others
}

// AddNode describes a meshd for the host, named like it, that joins the given
// hosts; extra arguments are appended to its command line. Start starts it.
func (f *Fleet) AddNode(h *rig.Host, extra []string, join ...*rig.Host) *Node {
	n := &Node{
		Host: h, fleet: f, extra: extra,
		Socket:  filepath.Join(f.dir, h.Name+".sock"),
		DataDir: filepath.Join(f.dir, h.Name+".data"),
		DNS:     netip.AddrPortFrom(h.Gateway, 53),
	}
	n.API = control.Dial(n.Socket)
	for _, o := range join {
		n.join = append(n.join, o.Addr.String())
	}
	return n
}

// Args is the command line of the daemon, without the program.
func (n *Node) Args() []string {
	args := []string{
		"--node", n.Host.Name, "--bind", n.bindTo(), "--data-dir", n.DataDir, "--socket", n.Socket,
		"--dns", n.DNS.String(), "--key-file", n.fleet.KeyFile, "--docker", "off", // not the engine of whoever tests
	}
	if n.fleet.LB != "" {
		args = append(args, "--lb", n.fleet.LB)
	}
	if len(n.join) > 0 {
		args = append(args, "--join", strings.Join(n.join, ","))
	}
	return append(args, n.extra...)
}

func (n *Node) bindTo() string {
	if n.bind.IsValid() {
		return n.bind.String()
	}
	return n.Host.Addr.String()
}

// Move makes the next start of the daemon bind to another address, which must
// be its host's.
func (n *Node) Move(bind netip.AddrPort) { n.bind = bind }

// Start starts the daemon and waits until its control API answers.
func (n *Node) Start(ctx context.Context) error {
	p, err := n.Host.Start("meshd", n.fleet.Meshd, n.Args()...)
	if err != nil {
		return err
	}
	n.Proc = p
	ctx, cancel := context.WithTimeout(ctx, rig.Patience(15*time.Second))
	defer cancel()
	return rig.Poll(ctx, func() error { return n.answers(ctx) })
}

func (n *Node) answers(ctx context.Context) error {
	select {
	case <-n.Proc.Done():
		return fmt.Errorf("meshd on %s ended: %w; its log ends:\n%s", n.Host.Name, n.Proc.Err(), Tail(n.Proc.Log, 10))
	default:
	}
	_, err := n.API.Version(ctx)
	return err
}

// Members waits until the node sees exactly so many members alive.
func (n *Node) Members(ctx context.Context, alive int) error {
	return rig.Poll(ctx, func() error {
		s, err := n.API.Status(ctx)
		if err == nil && s.Members.Alive != alive {
			err = fmt.Errorf("%s sees %d members alive, not %d", n.Host.Name, s.Members.Alive, alive)
		}
		return err
	})
}

// Ctl runs meshctl against the node and returns what it wrote.
func (n *Node) Ctl(args ...string) (string, error) {
	out, err := exec.Command(n.fleet.Meshctl, append([]string{"--socket", n.Socket}, args...)...).Output()
	if err != nil {
		return string(out), fmt.Errorf("meshctl %s on %s: %w", strings.Join(args, " "), n.Host.Name, said(err))
	}
	return string(out), nil
}

// Equal waits until meshctl diff finds the tables of all nodes equal, asked
// from this one; nodes says how many must have answered.
func (n *Node) Equal(ctx context.Context, nodes int) error {
	return rig.Poll(ctx, func() error {
		d, err := n.API.Diff(ctx, control.DiffRequest{})
		if err != nil {
			return err
		}
		if !d.Equal {
			return fmt.Errorf("tables differ: %+v", d)
		}
		for _, net := range d.Networks {
			if len(net.Nodes) == nodes {
				return nil
			}
		}
		return fmt.Errorf("no network was compared on %d nodes: %+v", nodes, d)
	})
}
