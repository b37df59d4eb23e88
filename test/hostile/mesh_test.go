//go:build linux

package hostile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
	"meshd/test/rig"
)

const (
	network = "collabnet"
	pool    = "10.96.0.0/16"
	hosts   = 3
)

// mesh is three hosts with a daemon each and a service with a task on each, and
// a host that has the key and means harm.
type mesh struct {
	t     *testing.T
	ctx   context.Context
	fleet *fleet.Fleet
	nodes []*fleet.Node
	tasks []*fleet.Task
	vip   netip.Addr
	evil  *rig.Host
	peer  *peer
	dir   string // for files of cases

	memory map[int]int // bytes, of each daemon at rest
	open   map[int]int // descriptors
	files  files       // what no case may change
	closes []func()    // after the case
	cases  int         // so far
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{t: t, ctx: t.Context(), dir: t.TempDir(), memory: map[int]int{}, open: map[int]int{}}
	m.fleet, m.nodes = fleet.Up(t, hosts)
	m.must(m.nodes[0].Ctl("network", "create", network, "--subnet", pool))
	m.within(10*time.Second, func() error {
		for _, n := range m.nodes {
			if all, err := n.API.Networks(m.ctx); err != nil || len(all) != 1 {
				return fmt.Errorf("%s knows %v, %w", n.Host.Name, all, err)
			}
		}
		return nil
	})
	for i, n := range m.nodes {
		task, err := n.Run(m.ctx, fleet.Spec{Network: network, Service: "web", Slot: i + 1, ID: "web-" + n.Host.Name})
		if err != nil {
			t.Fatal(err)
		}
		m.tasks = append(m.tasks, task)
	}
	evil, err := m.fleet.Rig.AddHost("evil")
	if err != nil {
		t.Fatal(err)
	}
	m.evil = evil
	if m.peer, err = newPeer(m); err != nil {
		t.Fatal(err)
	}
	m.within(20*time.Second, m.learn)
	if m.files, err = snapshot(); err != nil {
		t.Fatal(err)
	}
	return m
}

// learn records how the mesh is at rest.
func (m *mesh) learn() error {
	a, err := m.tasks[0].Resolve(m.ctx, "web", dns.TypeA)
	if err != nil || len(a.Data) != 1 || !strings.HasPrefix(a.Data[0], "10.96.") {
		return fmt.Errorf("web is %v, %w", a, err)
	}
	m.vip = netip.MustParseAddr(a.Data[0])
	for _, n := range m.nodes {
		memory, files, err := usage(n.Proc.PID)
		if err != nil {
			return err
		}
		m.memory[n.Proc.PID], m.open[n.Proc.PID] = memory, files
	}
	return errors.Join(m.serves(), m.equal(), m.nodes[0].Equal(m.ctx, hosts), m.healthy(""))
}

func (m *mesh) must(out string, err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%v %s", err, out)
	}
}

func (m *mesh) within(d time.Duration, check func() error) {
	m.t.Helper()
	fleet.Within(m.t, d, func(context.Context) error { return check() })
}

// later does something after the case.
func (m *mesh) later(f func()) { m.closes = append(m.closes, f) }

// end does what was put off until after the case.
func (m *mesh) end() {
	for _, f := range m.closes {
		f()
	}
	m.closes = nil
}

// run runs one case and says what is wrong afterwards, or nothing.
func (m *mesh) run(c *attack) (what string) {
	defer m.end()
	m.cases++
	if err := c.do(m); err != nil {
		return "cannot be done: " + err.Error()
	}
	if err := m.soon(toRest, func() error { return m.holds(c) }); err != nil {
		return err.Error()
	}
	if c.leave == nil {
		return ""
	}
	if err := c.leave(m); err != nil {
		return "cannot be ended: " + err.Error()
	}
	if err := m.soon(toRest, func() error {
		return errors.Join(m.alive(), m.serves(), m.equal(),
			m.healthy(""))
	}); err != nil {
		return "after its end: " + err.Error()
	}
	return ""
}

// soon waits for so long until check holds, or returns what it says at the end.
func (m *mesh) soon(d time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(m.ctx, rig.Patience(d))
	defer cancel()
	return rig.Poll(ctx, check)
}

// holds checks all that must be true after a case.
func (m *mesh) holds(c *attack) error {
	if err := m.alive(); err != nil {
		return err
	}
	if c.check != nil {
		if err := c.check(m); err != nil {
			return err
		}
	}
	for _, check := range []func() error{
		m.members, m.reachable, m.serves, m.equal, func() error { return m.healthy(c.degraded) }, m.untouched, m.atRest,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// reachPort is where the evil host listens, for others to see that they reach it.
const reachPort = 4711

// listen lets every host see that it reaches this one.
func listen(m *mesh) error {
	for _, addr := range []netip.Addr{m.evil.Addr, m.evil.Addr6} {
		l, err := m.evil.Listen(m.ctx, "tcp", netip.AddrPortFrom(addr, reachPort).String())
		if err != nil {
			return err
		}
		m.t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_ = c.Close()
				}
			}
		}()
	}
	return nil
}
