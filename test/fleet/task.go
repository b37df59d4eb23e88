//go:build linux

package fleet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"

	"meshd/test/rig"
)

// ServeArg is the first argument that makes a program serve as a task; see
// [ServeIfAsked].
const ServeArg = "serve-task"

// TaskPort is the port, of TCP and UDP, on which tasks serve.
const TaskPort = 80

// Task is one task of a service: a namespace with a server in it, registered
// at the node of its host.
type Task struct {
	*rig.Task
	Node    *Node
	Network string
	Service string
	Slot    int
	ID      string
	Box     string // the sandbox that it is in; empty: none
	Server  *rig.Proc
}

// Spec says what task to run.
type Spec struct {
	Network, Service, ID string
	Slot                 int
	Mode                 string     // vip or dnsrr; empty is vip
	VIP                  netip.Addr // pinned; the zero Addr: none
	Sandbox              bool       // attach the namespace, instead of only registering the task
}

// Run makes a namespace behind the node's host, starts a server in it, waits
// until that answers, and registers or attaches it with meshctl.
func (n *Node) Run(ctx context.Context, s Spec) (*Task, error) {
	where, err := n.Host.AddTask(fmt.Sprintf("%s.%d.%s", s.Service, s.Slot, s.ID))
	if err != nil {
		return nil, err
	}
	t := &Task{Task: where, Node: n, Network: s.Network, Service: s.Service, Slot: s.Slot, ID: s.ID}
	if err := t.Serve(ctx); err != nil {
		return nil, err
	}
	args := []string{"task", "add"}
	if s.Sandbox {
		t.Box = fmt.Sprintf("%s.%d.%s", s.Service, s.Slot, s.ID)
		args = []string{"sandbox", "attach", "--netns", t.Path(), "--name", t.Box}
	}
	args = append(args, "--network", s.Network, "--service", s.Service, "--id", s.ID, "--slot", strconv.Itoa(s.Slot),
		"--ip", t.Addr.String(), "--port", "http:80/tcp", "--port", "echo:80/udp")
	if s.Mode != "" {
		args = append(args, "--mode", s.Mode)
	}
	if s.VIP.IsValid() {
		args = append(args, "--vip", s.VIP.String())
	}
	_, err = n.Ctl(args...)
	return t, err
}

// DNS is where the task asks for names.
func (t *Task) DNS() netip.AddrPort {
	if t.Box != "" {
		return netip.MustParseAddrPort("127.0.0.11:53")
	}
	return t.Node.DNS
}

// Serve starts the task's server, as after a crash, and waits until it answers.
func (t *Task) Serve(ctx context.Context) (err error) {
	at := netip.AddrPortFrom(t.Addr, TaskPort).String()
	if t.Server, err = t.Start("server", "/proc/self/exe", ServeArg, t.ID, at); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rig.Patience(10*time.Second))
	defer cancel()
	return rig.Poll(ctx, func() error {
		_, err := t.Get(ctx, t.Addr)
		return err
	})
}

// Unregister takes the task out of its service, and then away.
func (t *Task) Unregister() error {
	args := []string{"task", "rm", t.ID}
	if t.Box != "" {
		args = []string{"sandbox", "detach", t.Box}
	}
	_, err := t.Node.Ctl(args...)
	t.Remove()
	return err
}

// ServeIfAsked serves as a task, for ever, if the program was started for
// that. Call it first in main.
func ServeIfAsked() {
	if len(os.Args) != 4 || os.Args[1] != ServeArg {
		return
	}
	id, at := os.Args[2], os.Args[3]
	fmt.Fprintln(os.Stderr, serve(id, at))
	os.Exit(1)
}

// serve answers HTTP requests and datagrams with the task's id.
func serve(id, at string) error {
	pc, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	go echo(pc, id)
	s := &http.Server{
		Addr: at, ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, id) }),
	}
	s.SetKeepAlivesEnabled(false) // each request shows where a new connection goes
	return s.ListenAndServe()
}

func echo(pc net.PacketConn, id string) {
	buf := make([]byte, 2048)
	for {
		_, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = pc.WriteTo([]byte(id), from)
	}
}
