//go:build linux

package main

// This file owns what all servers know: names, addresses, and the files or tables
// that say so.

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"meshd/state"
)

const (
	domain   = "mesh.internal."
	networks = 100 // of the case of that name; they share the names
	perTen   = 10  // addresses of a name of the case hit10
)

// world is what all servers know.
type world struct {
	one, ten, unknown, spread []string // names: one address, ten, none, and one in one of many networks
}

func newWorld(names int) *world {
	w := &world{}
	for i := range names {
		w.one = append(w.one, fmt.Sprintf("svc%05d.net1.%s", i, domain))
		w.unknown = append(w.unknown, fmt.Sprintf("nope%05d.net1.%s", i, domain))
		w.spread = append(w.spread, fmt.Sprintf("svc%05d.n%03d.%s", i/networks, i%networks, domain))
	}
	for i := range max(1, names/10) {
		w.ten = append(w.ten, fmt.Sprintf("tasks.ten%05d.net1.%s", i, domain))
	}
	return w
}

func vipOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}) }

func taskOf(i, k int) netip.Addr {
	n := i*perTen + k
	return netip.AddrFrom4([4]byte{172, byte(16 + n>>16), byte(n >> 8), byte(n)})
}

// each calls f with every name and its addresses.
func (w *world) each(f func(name string, addrs ...netip.Addr)) {
	for i, n := range w.one {
		f(n, vipOf(i))
	}
	for i, n := range w.spread {
		f(n, vipOf(i/networks))
	}
	for i, n := range w.ten {
		var as []netip.Addr
		for k := range perTen {
			as = append(as, taskOf(i, k))
		}
		f(n, as...)
	}
}

// hosts is the world as a hosts file.
func (w *world) hosts() []byte {
	var b []byte
	w.each(func(name string, addrs ...netip.Addr) {
		for _, a := range addrs {
			b = append(b, a.String()+" "+strings.TrimSuffix(name, ".")+"\n"...)
		}
	})
	return b
}

// packets are the queries of a case, packed.
func packets(names []string, edns bool) ([][]byte, error) {
	var ps [][]byte
	for _, n := range names {
		m := new(dns.Msg).SetQuestion(n, dns.TypeA)
		if edns {
			m.SetEdns0(1232, false)
		}
		p, err := m.Pack()
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// lamport is a clock of one node.
type lamport uint64

func (l *lamport) Tick() uint64     { *l++; return uint64(*l) }
func (l *lamport) Time() uint64     { return uint64(*l) }
func (l *lamport) Witness(t uint64) { *l = max(*l, lamport(t)) }

// store is the world as a node of ours has it: one task behind every VIP.
func (w *world) store() (*state.Store, error) {
	s := state.NewStore("bench", 1, state.DefaultLimits(), new(lamport))
	if err := fill(s, "net1", netip.MustParsePrefix("10.96.0.0/16"), w.net1()); err != nil {
		return nil, err
	}
	for n := range networks {
		var cs []state.Change
		for i := 0; i*networks+n < len(w.spread); i++ {
			cs = append(cs, service(fmt.Sprintf("svc%05d", i), i, 0)...)
		}
		if err := fill(s, fmt.Sprintf("n%03d", n), netip.MustParsePrefix("10.96.0.0/16"), cs); err != nil {
			return nil, err
		}
	}
	s.Publish(0)
	return s, nil
}

func (w *world) net1() (cs []state.Change) {
	for i := range w.one {
		cs = append(cs, service(fmt.Sprintf("svc%05d", i), i, 0)...)
	}
	for i := range w.ten {
		for k := range perTen {
			cs = append(cs, task(fmt.Sprintf("ten%05d", i), k, taskOf(i, k)))
		}
	}
	return cs
}

// service is a service with a VIP and a task; generation makes the task another one.
func service(name string, i, generation int) []state.Change {
	claim := state.VIPClaim{Service: name, Birth: 1, VIP4: vipOf(i)}
	return []state.Change{
		{Kind: state.KindVIP, Key: name, Body: string(state.AppendVIPClaim(nil, claim))},
		task(name, 1, netip.AddrFrom4([4]byte{192, 168, byte(i>>8) ^ byte(generation), byte(i)})),
	}
}

func task(service string, slot int, ip netip.Addr) state.Change {
	e := state.Endpoint{
		ID: service + "t" + strconv.Itoa(slot), Service: service, Slot: uint32(slot), IP4: ip,
		Ports: []state.Port{{Number: 80, Proto: state.TCP}},
	}
	e.Normalize()
	return state.Change{Kind: state.KindEndpoint, Key: e.ID, Group: service, Body: string(state.AppendEndpoint(nil, &e))}
}

func fill(s *state.Store, network string, pool netip.Prefix, cs []state.Change) error {
	t := s.Join(network)
	t.SetDef(state.NetworkDef{Name: network, Subnet4: pool, Birth: 1})
	t.SetSynced()
	_, err := t.Commit(cs)
	return err
}
