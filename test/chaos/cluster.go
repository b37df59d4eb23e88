//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/rig"
)

const network = "chaosnet"

// The services: web has a task on every host, api on two of them, names is
// answered with its tasks; clients are tasks too, which is how a daemon knows
// what network they ask about.
const (
	web     = "web"
	api     = "api"
	names   = "names"
	clients = "clients"
)

func modeOf(service string) string {
	if service == names || service == clients {
		return "dnsrr"
	}
	return "vip"
}

// Options of a run.
type Options struct {
	Seed  uint64
	For   time.Duration // until no new round begins
	Hosts int
	Bound time.Duration // for everything to be right after a round is healed
	Only  []string      // kinds of faults to draw from; empty: all
	Log   func(format string, args ...any)
}

// cluster is the fleet under test.
type cluster struct {
	Options
	fleet   *fleet.Fleet
	rng     *rand.Rand // of the schedule
	members []*member
	line    timeline
	book    book
	broken  []*badLink // in force
	result  Result
}

// member is one host with its daemon and a client.
type member struct {
	*fleet.Node
	index  int
	client *fleet.Task // from which the client resolves and connects

	outage  *outage // in force, or nil
	killed  bool    // the outage is not a pause
	amnesia bool    // the disk is lost as well

	mu     sync.Mutex // guards usable
	usable bool       // tasks may be registered
}

func (m *member) setUsable(u bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.usable = u
}

func (m *member) isUsable() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.usable
}

// start brings up daemons, network, anchors and client namespaces.
func (c *cluster) start(ctx context.Context) error {
	r := c.fleet.Rig
	for i := range c.Hosts {
		if _, err := r.AddHost(hostName(i)); err != nil {
			return err
		}
	}
	all := r.Hosts()
	for i, h := range all {
		others := append(append([]*rig.Host{}, all[:i]...), all[i+1:]...)
		m := &member{Node: c.fleet.AddNode(h, nil, others[:min(3, len(others))]...), index: i}
		if err := m.Start(ctx); err != nil {
			return err
		}
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		if err := poll(ctx, 20*time.Second, func() error { return m.sees(ctx, c.Hosts) }); err != nil {
			return err
		}
	}
	return c.populate(ctx)
}

func (m *member) sees(ctx context.Context, alive int) error {
	s, err := m.API.Status(ctx)
	if err == nil && s.Members.Alive != alive {
		err = fmt.Errorf("%s sees %d members alive, not %d", m.Host.Name, s.Members.Alive, alive)
	}
	return err
}

func (c *cluster) populate(ctx context.Context) error {
	c.book.line, c.book.vips = &c.line, map[string]netip.Addr{}
	_, err := c.members[0].API.CreateNetwork(ctx, control.CreateNetwork{Name: network, Subnet: "10.96.0.0/16"})
	if err != nil {
		return err
	}
	for i, m := range c.members {
		if err := poll(ctx, 10*time.Second, func() error { return m.knows(ctx, network) }); err != nil {
			return err
		}
		services := []string{web, names, clients}
		if i < 2 {
			services = append(services, api)
		}
		for _, s := range services {
			t, err := c.runTask(ctx, m, s, "anchor-"+s+"-"+m.Host.Name, true)
			if err != nil {
				return err
			}
			if s == clients {
				m.client = t
			}
		}
		m.setUsable(true)
	}
	return nil
}

func (m *member) knows(ctx context.Context, network string) error {
	all, err := m.API.Networks(ctx)
	if err == nil && (len(all) == 0 || all[0].Name != network) {
		err = fmt.Errorf("%s does not know network %s", m.Host.Name, network)
	}
	return err
}

// poll tries check until it returns nil, and returns its last error when time
// is up.
func poll(ctx context.Context, patience time.Duration, check func() error) error {
	end := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %w", patience, err)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// dump logs what every node knows, so that the cause can be found.
func (c *cluster) dump(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for _, m := range c.members {
		s, err := m.API.Status(ctx)
		c.Log("%s status: %+v %v", m.Host.Name, s, err)
		d, err := m.API.Network(ctx, network)
		c.Log("%s network: %+v %v", m.Host.Name, d, err)
		for _, service := range []string{web, api} {
			one, err := m.API.Service(ctx, control.ServiceRef{Network: network, Name: service})
			c.Log("%s service %s: VIPs %v claims %+v %v", m.Host.Name, service, one.VIPs, one.Claims, err)
		}
	}
}

var crash = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE).*`)

// alive reports a daemon that ended by itself, or whose log tells of a crash.
func (c *cluster) alive() error {
	for _, m := range c.members {
		select {
		case <-m.Proc.Done():
			return fmt.Errorf("meshd on %s ended by itself: %w; its log ends:\n%s", m.Host.Name, m.Proc.Err(),
				fleet.Tail(m.Proc.Log, 20))
		default:
		}
		text, err := os.ReadFile(m.Proc.Log)
		if err != nil {
			return err
		}
		if found := crash.Find(text); found != nil {
			return fmt.Errorf("%s: %s", filepath.Base(m.Proc.Log), found)
		}
	}
	return nil
}
