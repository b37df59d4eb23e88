//go:build linux

package hostile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/control"
	"meshd/state"
	"meshd/test/fleet"
	"meshd/test/rig"
)

// stormCases go on for a while, from many owners or many addresses.
func stormCases() []attack {
	return []attack{
		{name: "streams-of-strangers", do: streamsOfStrangers},
		{name: "claims-of-many-for-one-service", do: claimsOfMany, check: fewAddresses, leave: func(m *mesh) error {
			return m.peer.say(claimers(func(i int) []state.Record { return nil }, 2)...)
		}},
		{name: "claims-that-come-and-go", do: claimsComeAndGo},
		{name: "settings-that-change-all-the-time", do: settingsFlap},
		{name: "tasks-that-change-all-the-time", do: tasksFlap},
		{name: "ports-of-a-thousand-tasks", do: manyPorts},
		{name: "incarnations-at-their-end", do: incarnationsAtTheEnd},
	}
}

const claimersCount = 3000

func claimers(records func(i int) []state.Record, inc uint64) (out [][]byte) {
	for i := range claimersCount {
		out = append(out, stated(fmt.Sprintf("claimer-%d", i), network, inc, records(i)...))
	}
	return out
}

// claimsOfMany claims an address of its own for the service from each of some
// thousand owners.
func claimsOfMany(m *mesh) error {
	return m.peer.say(claimers(func(i int) []state.Record {
		return []state.Record{vipClaim("web", fmt.Sprintf("10.96.%d.%d", 100+i/250, i%250+1), false, 1<<20+uint64(i))}
	}, 1)...)
}

// fewAddresses: no service has more addresses in the kernel than a move needs.
func fewAddresses(m *mesh) error {
	for _, n := range m.nodes {
		s, err := n.API.Service(m.ctx, control.ServiceRef{Network: network, Name: "web"})
		if err != nil {
			return err
		}
		if len(s.OtherVIPs) > 8 {
			return fmt.Errorf("on %s web has %d more addresses", n.Host.Name, len(s.OtherVIPs))
		}
		t, err := n.API.LB(m.ctx, control.LBRequest{})
		if err != nil {
			return err
		}
		if len(t.Services) > 64 {
			return fmt.Errorf("on %s the kernel has %d services", n.Host.Name, len(t.Services))
		}
	}
	return nil
}

// claimsComeAndGo claims and frees addresses by the thousand, inside the pool
// and out of it.
func claimsComeAndGo(m *mesh) error {
	l, err := m.live("evil", 7960)
	if err != nil {
		return err
	}
	for round := range 10 {
		var put, drop []state.Change
		for i := range 4000 {
			r := vipClaim(fmt.Sprintf("free-%d", i), fmt.Sprintf("10.%d.%d.%d", 96+round%2, 16*round+i/250, i%250+1), false,
				1<<20)
			put = append(put, changes(r)...)
			drop = append(drop, state.Change{Kind: r.Kind, Key: r.Key, Delete: true})
		}
		if err := errors.Join(l.state(network, put...), l.state(network, drop...)); err != nil {
			return err
		}
		m.peer.pause(200 * time.Millisecond)
	}
	return nil
}

// settingsFlap changes how the service is served, hundreds of times a second, and
// then leaves it as it was: what was said last of a service is carried on by its
// hosts.
func settingsFlap(m *mesh) error {
	l, err := m.live("evil", 7960)
	if err != nil {
		return err
	}
	schedulers := []string{"rr", "wlc", "sh", "wrr"}
	defer l.leave()
	last := 0
	err = m.busy(5*time.Second, func(i int) error {
		last = i
		s := state.Settings{
			Scheduler: schedulers[i%4], Drain: time.Duration(1+i%50) * time.Second,
			TTL: time.Duration(i%60) * time.Second,
		}
		if i%7 == 0 {
			s.Mode = state.ModeDNSRR
		}
		return l.state(network, changes(settings("web", s, 1000+uint64(i)))...)
	})
	// Settings outlast who stated them, so that the last ones have to arrive.
	return errors.Join(err, m.soon(20*time.Second, func() error {
		last++
		return errors.Join(l.state(network, changes(settings("web", state.Settings{}, 1000+uint64(last)))...), m.serves())
	}))
}

// tasksFlap adds and removes tasks of the service, hundreds of times a second.
func tasksFlap(m *mesh) error {
	l, err := m.live("evil", 7960)
	if err != nil {
		return err
	}
	defer l.leave()
	return m.busy(5*time.Second, func(i int) error {
		var all []state.Change
		for k := range 30 {
			r := endpoint(fmt.Sprintf("flap-%d", k), "web", fmt.Sprintf("10.9.9.%d", k+1), func(e *state.Endpoint) {
				e.Weight = uint16(1 + i%100)
				e.Ports = append(e.Ports, state.Port{Number: uint16(1000 + i%9), Proto: state.UDP})
			})
			c := changes(r)[0]
			c.Delete = (i+k)%3 == 0
			all = append(all, c)
		}
		return l.state(network, all...)
	})
}

// busy does something every three milliseconds for a while.
func (m *mesh) busy(d time.Duration, do func(i int) error) error {
	until := time.Now().Add(d)
	for i := 0; time.Now().Before(until); i++ {
		if err := do(i); err != nil {
			return err
		}
		m.peer.pause(3 * time.Millisecond)
	}
	return nil
}

// manyPorts has a thousand tasks of a service with dozens of ports each: what
// follows must not be as many backends as both multiplied.
func manyPorts(m *mesh) error {
	l, err := m.live("evil", 7960)
	if err != nil {
		return err
	}
	cs := changes(vipClaim("web2", "10.96.77.77", false, 1<<20))
	for k := range 1100 {
		cs = append(cs, changes(endpoint(fmt.Sprintf("many-%d", k), "web2", fmt.Sprintf("10.202.%d.%d", k/250, k%250+1),
			func(e *state.Endpoint) {
				e.Ports = nil
				for p := range state.MaxPorts {
					e.Ports = append(e.Ports, state.Port{Number: uint16(1000 + p), Proto: state.TCP})
				}
			}))...)
	}
	if err := l.state(network, cs...); err != nil {
		return err
	}
	if err := m.soon(60*time.Second, m.manyBackends); err != nil {
		return err
	}
	l.leave()
	return nil
}

// manyBackends: each host balances the service of a thousand tasks, at as many
// ports as there is room for.
func (m *mesh) manyBackends() error {
	for _, n := range m.nodes {
		t, err := n.API.LB(m.ctx, control.LBRequest{Network: network, Service: "web2"})
		if err != nil {
			return err
		}
		backends := 0
		for _, s := range t.Services {
			backends += len(s.Backends)
		}
		if backends < 1<<15 || backends > 1<<16 {
			return fmt.Errorf("%s has %d ports with %d backends", n.Host.Name, len(t.Services), backends)
		}
	}
	return nil
}

// streamsOfStrangers opens connections without a key from many addresses, as
// fast as they are closed, and says nothing or the beginning of something. Meanwhile
// who has the key is answered over streams, and a host that starts comes to know
// the mesh.
func streamsOfStrangers(m *mesh) error {
	ctx, cancel := context.WithCancel(m.ctx)
	var all sync.WaitGroup
	defer func() { cancel(); all.Wait() }()
	for i := range 7 {
		from := netip.AddrFrom4([4]byte{172, 20, 0, byte(200 + i)})
		if err := m.evil.AddAddress(from); err != nil {
			return err
		}
		for _, n := range m.nodes {
			for k := range 40 {
				all.Go(func() { m.hog(ctx, from, netip.AddrPortFrom(n.Host.Addr, 7946), k%5 == 0) })
			}
		}
	}
	m.peer.pause(2 * time.Second)
	answered := 0
	for i := range 15 {
		if m.answersOverStream(m.nodes[i%3]) {
			answered++
		}
	}
	if answered < 12 {
		return fmt.Errorf("of 15 who have the key, %d are answered", answered)
	}
	n := m.nodes[2]
	n.Proc.Kill()
	if err := n.Start(m.ctx); err != nil {
		return err
	}
	memory, files, err := usage(n.Proc.PID)
	if m.memory[n.Proc.PID], m.open[n.Proc.PID] = memory, files; err != nil {
		return err
	}
	return m.soon(10*time.Second, func() error {
		a, err := m.tasks[2].Resolve(m.ctx, "web-host1", dns.TypeA)
		if err == nil && a.String() != m.tasks[0].Addr.String() {
			err = fmt.Errorf("for host3 the task of host1 is %s", a)
		}
		return errors.Join(err, m.members())
	})
}

// answersOverStream asks memberlist for a sign of life over a stream, as honest
// hosts do.
func (m *mesh) answersOverStream(n *fleet.Node) bool {
	c, err := m.peer.dial(n)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(rig.Patience(time.Second)))
	_, _ = c.Write(m.peer.sealStream([]byte("\x00\x81\xa5SeqNo\x07")))
	_, err = c.Read(make([]byte, 1))
	return err == nil
}

// hog holds a connection for as long as it is let.
func (m *mesh) hog(ctx context.Context, from netip.Addr, to netip.AddrPort, begins bool) {
	head := []byte{10, 0, 0x3f, 0xff, 0, 1}
	body := make([]byte, 1400<<10)
	for ctx.Err() == nil {
		var c net.Conn
		err := m.evil.Do(func() (err error) {
			d := net.Dialer{Timeout: time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
			c, err = d.DialContext(ctx, "tcp", to.String())
			return err
		})
		if err != nil {
			m.peer.pause(20 * time.Millisecond)
			continue
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		if begins {
			_, _ = c.Write(head)
			_, _ = c.Write(body)
		}
		_, _ = c.Read(make([]byte, 1))
		stop()
		_ = c.Close()
	}
}

// incarnationsAtTheEnd says of each host that it lives at memberlist's highest
// incarnation, which it cannot go above, and then that it is dead at it.
func incarnationsAtTheEnd(m *mesh) error {
	for range 3 {
		for _, about := range m.nodes {
			for _, to := range m.nodes {
				for _, b := range [][]byte{
					member(aliveMessage, about.Host.Name, math.MaxUint32, about.Host.Addr),
					member(suspectMessage, about.Host.Name, math.MaxUint32, about.Host.Addr),
					member(deadMessage, about.Host.Name, math.MaxUint32, about.Host.Addr),
				} {
					if err := m.peer.message(to, b); err != nil {
						return err
					}
				}
			}
		}
		m.peer.pause(100 * time.Millisecond)
	}
	return nil
}
