//go:build linux

package hostile

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/control"
	"meshd/state"
)

// say is a case that states records in the network and in the global scope.
func say(name string, records ...state.Record) attack {
	return attack{name: name, do: func(m *mesh) error {
		var here, global []state.Record
		for _, r := range records {
			if r.Kind >= state.KindNode && r.Kind <= state.KindBeacon {
				global = append(global, r)
			} else {
				here = append(here, r)
			}
		}
		return m.peer.say(stated(name, "", 1, append(global, membership(network))...), stated(name, network, 1, here...))
	}, leave: func(m *mesh) error { // in good order: with its last, empty word
		return m.peer.say(stated(name, network, 2), stated(name, "", 2))
	}}
}

// with adds what must hold.
func (c attack) with(check func(m *mesh) error) attack {
	c.check = check
	return c
}

// says adds that status must say so.
func (c attack) says(text string) attack {
	c.degraded = text
	return c
}

// recordCases are records of an owner of its own, in good form.
func recordCases() []attack {
	const far = 1 << 62
	body := func(fields ...byte) string { return string(fields) }
	address := []byte{1, 4, 10, 9, 9, 9}
	number := func(tag byte, n uint64) []byte {
		v := binary.AppendUvarint(nil, n)
		return append([]byte{tag, byte(len(v))}, v...)
	}
	task := func(id string, more ...byte) state.Record {
		return state.Record{
			Kind: state.KindEndpoint, Key: id, Group: "evil",
			Body: body(append(slices.Clone(address), more...)...),
		}
	}
	return []attack{
		say("pool-over-the-hosts", definition(network, "172.20.0.0/16", "fd20::/16", 1)).with(nobodyMayChoose("172.20.0.0/16",
			"fd20::/16")).says("other nodes say"),
		say("pool-over-a-neighbour", definition(network, "172.20.0.0/29", "", 1)).with(nobodyMayChoose("172.20.0.0/29",
			"")).says("other nodes say"),
		say("pool-over-the-containers", definition(network, "10.0.0.0/8", "fd21::/16", 1)).with(nobodyMayChoose("10.0.0.0/8",
			"fd21::/16")).says("other nodes say"),
		say("pool-of-loopback", definition(network, "127.0.0.0/8", "::/0", 1)).with(poolKept),
		say("pool-of-everything", definition(network, "0.0.0.0/0", "2000::/3", 1)).with(poolKept),
		say("pool-of-nobody", definition(network, "240.0.0.0/4", "ff00::/8", 1)).with(poolKept),
		say("pool-at-the-end-of-time", definition(network, "10.97.0.0/16", "", far)).with(poolKept),
		say("pools-of-new-networks", definition("n1", "172.20.0.0/24", "", 1), definition("n2", "127.0.0.0/8", "::/0", 2),
			definition("n3", "10.96.0.0/12", "", 3), membership("n1"), membership("n2"), membership("n3")).with(poolKept),
		say("network-removed", removal(network, 1, far), removal(network, far, far), removal(network, 0, 0)).with(poolKept),
		say("networks-by-the-hundred", manyNetworks(300)...).with(poolKept),
		say("times-at-the-end", vipClaim("late", "10.96.9.9", false, far),
			settings("late", state.Settings{Scheduler: "rr"}, far), definition("late", "10.98.0.0/16", "", far)).with(claimable),
		say("times-far-ahead", vipClaim("late", "10.96.9.9", false, 1<<40),
			settings("late", state.Settings{Scheduler: "rr"}, 1<<40),
			definition("late", "10.98.0.0/16", "", 1<<40)).with(claimable),
		say("task-at-loopback", endpoint("evil-lo", "web", "127.0.0.1"), endpoint("evil-lo6", "web", "::1")),
		say("task-in-the-pool", endpoint("evil-pool", "web", "10.96.7.7")),
		say("task-at-everybody", endpoint("evil-all", "web", "255.255.255.255"), endpoint("evil-none", "web", "0.0.0.0"),
			endpoint("evil-mc", "web", "224.0.0.1"), endpoint("evil-ll", "web", "fe80::1")),
		say("task-with-an-id-of-others", endpoint("web-host1", "evil", "10.9.9.9"),
			endpoint("web-host2", "evil", "10.9.9.8")).with(idsKept),
		say("address-of-the-service", vipClaim("evil", "10.96.0.1", true, 1), vipClaim("evil2", "10.96.0.1", true, 0)),
		say("addresses-outside-the-pool", vipClaim("evil", "172.20.0.1", true, 1), vipClaim("evil2", "127.0.0.1", true, 1),
			vipClaim("evil3", "10.1.1.1", false, 1), endpoint("e3", "evil3", "10.9.9.9")),
		say("names-of-the-world", endpoint("google", "google", "10.9.9.9", func(e *state.Endpoint) {
			e.Aliases = []string{"www.google.com", "com", "localhost", "mesh.internal"}
			e.Hostname, e.Name = "github.com", "tasks"
		})),
		say("alias-of-the-service", endpoint("alias", "evil", "10.9.9.9",
			func(e *state.Endpoint) { e.Aliases = []string{"web", "tasks.web"} })),
		say("settings-of-nobody", settings("evil", state.Settings{
			Scheduler: "evil", Drain: 365 * 24 * time.Hour,
			Affinity: 365 * 24 * time.Hour, TTL: time.Hour,
		}, 9), endpoint("set", "evil", "10.9.9.9")),
		say("settings-of-the-service", settings("web", state.Settings{Scheduler: "../../evil", Drain: 365 * 24 * time.Hour},
			9), settings("web", state.Settings{Scheduler: "lblcr", Drain: 365 * 24 * time.Hour}, 10)),
		say("beacons-of-all-times", beacon(0), beacon(1<<63-1)),
		say("beacon-beyond-time", state.Record{Kind: state.KindBeacon, Body: body(number(5, 1<<64-1)...)}),
		say("node-at-other-addresses", nodeRecord("172.20.0.1:7946", far)),
		say("node-at-loopback", nodeRecord("127.0.0.1:0", 0)),
		say("protocol-to-come", task("sctp", 3, 3, 0, 80, 132), task("none", 3, 3, 0, 0, 6)),
		say("weights-and-slots", task("w0", number(4, 0)...), task("w1", number(4, 1<<40)...),
			task("s1", number(5, 1<<40)...), task("h1", number(9, 1<<60)...), task("w2", number(4, 65535)...)),
		say("bodies-of-junk", junk()...),
		say("kinds-to-come", kinds()...),
		say("tasks-by-the-thousand", manyTasks(4000)...),
		say("service-with-a-thousand-tasks", manyTasksOf("web2", 1000)...),
	}
}

// poolKept: the network's definition is the one that it had on each host.
func poolKept(m *mesh) error {
	for _, n := range m.nodes {
		d, err := n.API.Network(m.ctx, network)
		if err != nil {
			return err
		}
		if d.Subnet.String() != pool {
			return fmt.Errorf("on %s the pool is %s", n.Host.Name, d.Subnet)
		}
	}
	return nil
}

// nobodyMayChoose: what a record says of a running network is disputed and not in
// effect, and a person who chooses it is refused, as it touches hosts.
func nobodyMayChoose(subnet, subnet6 string) func(m *mesh) error {
	return func(m *mesh) error {
		args := []string{"network", "create", network, "--subnet", subnet}
		if subnet6 != "" {
			args = append(args, "--subnet6", subnet6)
		}
		out, err := m.nodes[0].Ctl(args...)
		if err == nil || !strings.Contains(err.Error(), "this host cannot serve") {
			return fmt.Errorf("meshctl %s: %s %w", strings.Join(args, " "), out, err)
		}
		return poolKept(m)
	}
}

// claimable: a new service gets an address, and a new network comes into being.
func claimable(m *mesh) error {
	name := fmt.Sprintf("new-%d", m.cases)
	services, err := m.nodes[0].API.Services(m.ctx, network)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(services, func(s control.Service) bool { return s.Name == name }) {
		if _, err := m.nodes[0].Ctl("task", "add", "--network", network, "--service", name, "--id", name, "--ip", "10.1.1.99",
			"--port", "80"); err != nil {
			return err
		}
		m.later(func() { _, _ = m.nodes[0].Ctl("task", "rm", name) })
		if _, err := m.nodes[1].Ctl("network", "create", name, "--subnet",
			fmt.Sprintf("10.%d.0.0/16", 100+m.cases)); err != nil {
			return err
		}
		m.later(func() { _, _ = m.nodes[1].Ctl("network", "rm", name) })
	}
	a, err := m.tasks[2].Resolve(m.ctx, name, dns.TypeA)
	if err != nil {
		return err
	}
	addr, _ := netip.ParseAddr(a.String())
	if !netip.MustParsePrefix(pool).Contains(addr) {
		return fmt.Errorf("the new service %s is %s", name, a)
	}
	all, err := m.nodes[2].API.Networks(m.ctx)
	if err == nil && !slices.ContainsFunc(all, func(n control.Network) bool { return n.Name == name }) {
		err = fmt.Errorf("host3 does not know the new network %s", name)
	}
	return err
}

// idsKept: a task is found under its id on every host.
func idsKept(m *mesh) error {
	for i, t := range m.tasks {
		a, err := t.Resolve(m.ctx, fmt.Sprintf("web.%d.%s", i+1, t.ID), dns.TypeA)
		if err == nil && a.String() != t.Addr.String() {
			err = fmt.Errorf("task %s is %s, not %s", t.ID, a, t.Addr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func manyNetworks(n int) (out []state.Record) {
	for i := range n {
		name := fmt.Sprintf("many-%d", i)
		out = append(out, definition(name, fmt.Sprintf("10.%d.%d.0/24", 120+i/250, i%250), "", uint64(i+1)))
	}
	return out
}

func manyTasks(n int) (out []state.Record) {
	for i := range n {
		out = append(out, endpoint(fmt.Sprintf("many-%d", i), fmt.Sprintf("many-%d", i/4),
			fmt.Sprintf("10.200.%d.%d", i/250, i%250+1)))
	}
	return out
}

func manyTasksOf(service string, n int) (out []state.Record) {
	for i := range n {
		out = append(out, endpoint(fmt.Sprintf("%s-%d", service, i), service, fmt.Sprintf("10.201.%d.%d", i/250, i%250+1)))
	}
	return out
}

// junk is every kind that is known, with a body that is none.
func junk() (out []state.Record) {
	bodies := []string{
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x01", "\x01\x05\x01",
		"\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f", strings.Repeat("\x08\x01a", 1000),
		"\x01\x04\x0a\x00\x00\x01\x01\x04\x0a\x00\x00\x02",
	}
	for i, b := range bodies {
		for _, k := range []state.Kind{
			state.KindEndpoint, state.KindVIP, state.KindSettings, state.KindNode,
			state.KindNetwork, state.KindMember, state.KindBeacon,
		} {
			out = append(out, state.Record{Kind: k, Key: fmt.Sprintf("junk-%d", i), Group: "junk", Body: b})
		}
	}
	return out
}

// kinds are records of kinds that no version knows yet.
func kinds() (out []state.Record) {
	for k := 20; k < 127; k++ {
		out = append(out, state.Record{
			Kind: state.Kind(k), Key: "kind", Group: strings.Repeat("g", 200),
			Body: strings.Repeat("b", state.MaxBody),
		})
	}
	return out
}
