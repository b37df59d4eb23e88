package hostcheck

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

const (
	tcp = 6
	udp = 17
	dns = 53
)

// neededPacket is a packet that meshd depends on. The fields after packet say how to
// accept it: each that is set adds one rule to the command of a finding.
type neededPacket struct {
	packet // as the filter sees it

	purpose    string // what does not work if it is dropped, for people
	unreported bool   // few hosts have such packets: a drop is no finding, but a rule for it is returned

	destination netip.Prefix   // of the connection, before translation
	source      netip.Prefix   // of the connection
	listening   netip.AddrPort // a port of the host to which it goes
	translated  bool           // everything that was translated, since no pool is known yet
	loopback    bool           // everything on the loopback device
	answer      bool           // everything of a connection that exists
}

// denied is what one base chain drops.
type denied struct {
	chain    *Chain                // the base chain
	cause    string                // for people: the rule or the policy that drops
	purposes []string              // what does not work
	pools    map[netip.Prefix]bool // the prefixes in destinations that are pools

	// What has to be accepted, as of neededPacket.

	destinations []netip.Prefix // of connections
	sources      []netip.Prefix // of connections
	listening    []listener     // ports of the host
	translated   bool           // what was translated
	loopback     bool           // what stays on the loopback device
	answers      bool           // what belongs to connections that exist
}

// listener is a port of the host.
type listener struct {
	at    netip.AddrPort
	proto uint32
}

// checkFirewall follows the packets that meshd depends on through the chains of
// others.
func (h *check) checkFirewall() {
	rules := h.ruleset()
	for i := range h.facts.Chains {
		base := &h.facts.Chains[i]
		switch base.Hook {
		case Forward:
			h.checkChain(rules, base, FirewallForward, h.forwardedPackets())
		case Input:
			h.checkChain(rules, base, FirewallInput, h.inputPackets())
		case Prerouting:
			h.checkChain(rules, base, FirewallForward, h.preroutingPackets())
		}
	}
}

// ruleset returns the chains by name.
func (h *check) ruleset() ruleset {
	rules := ruleset{}
	for i := range h.facts.Chains {
		rules[h.facts.Chains[i].key()] = &h.facts.Chains[i]
	}
	return rules
}

// checkChain finds which of the packets a base chain drops.
func (h *check) checkChain(rules ruleset, base *Chain, code Code, packets []neededPacket) {
	d := denied{chain: base, pools: map[netip.Prefix]bool{}}
	for _, p := range h.needs.Pools {
		d.pools[p] = true
	}
	var quiet []netip.Prefix
	for i := range packets {
		p := &packets[i]
		if h.maxSteps > 0 && h.steps > h.maxSteps {
			return // the findings of this chain would be incomplete
		}
		w, steps := rules.evaluate(base, &p.packet)
		h.steps += steps
		if w == nil {
			continue
		}
		if p.unreported {
			addOnce(&quiet, p.destination)
			continue
		}
		if d.cause == "" {
			d.cause = dropCause(base, w)
		}
		addOnce(&d.purposes, p.purpose)
		if p.destination.IsValid() {
			addOnce(&d.destinations, p.destination)
		}
		if p.source.IsValid() {
			addOnce(&d.sources, p.source)
		}
		if p.listening.IsValid() {
			addOnce(&d.listening, listener{p.listening, p.proto})
		}
		d.translated, d.loopback, d.answers = d.translated || p.translated, d.loopback || p.loopback, d.answers || p.answer
	}
	quiet = slices.DeleteFunc(quiet, func(p netip.Prefix) bool { return slices.Contains(d.destinations, p) })
	h.accepts = append(h.accepts, (&denied{chain: base, pools: d.pools, destinations: quiet}).acceptRules(rules)...)
	if len(d.purposes) == 0 {
		return
	}
	lets := d.acceptRules(rules)
	var lines []string
	for _, l := range lets {
		lines = append(lines, shellCommand(l.Command("", false)...))
	}
	h.accepts = append(h.accepts, lets...)
	h.addFinding(Finding{
		Code: code, Severity: Fault, Command: strings.Join(lines, " && "), Document: sectionFirewalls,
		What: fmt.Sprintf("%s: %s do not get through", d.cause, joinWords(d.purposes)),
	})
}

func addOnce[T comparable](all *[]T, one T) {
	if !slices.Contains(*all, one) {
		*all = append(*all, one)
	}
}

// dropCause says for people which rule or policy drops.
func dropCause(base *Chain, w *walk) string {
	name := base.String()
	switch {
	case w.byPolicy:
		return fmt.Sprintf("the policy of %s (hook %s) is drop", name, base.Hook)
	case w.droppedBy != base:
		return fmt.Sprintf("a rule of chain %s, of %s (hook %s), drops packets", w.droppedBy.Name, name, base.Hook)
	}
	return fmt.Sprintf("a rule of %s (hook %s) drops packets", name, base.Hook)
}

// forwardedPackets returns the packets at the hook forward: of connections through
// VIPs, and of connections between tasks here and other hosts, in both directions.
func (h *check) forwardedPackets() (all []neededPacket) {
	up := ""
	if d := h.uplink(); d != nil {
		up = d.Name
	}
	for _, d := range h.containerDevices {
		for _, pool := range h.needs.Pools {
			all = append(all, h.vipPackets(pool, d.Name, up)...)
		}
		if len(h.needs.Pools) == 0 {
			all = append(all, h.vipPackets(netip.Prefix{}, d.Name, up)...)
		}
		for _, p := range d.Prefixes {
			if a := h.taskInSubnet(d, p); a.IsValid() {
				all = append(all, h.inboundPackets(a, p.Masked(), d.Name, up)...)
				all = append(all, h.outboundPackets(a, p.Masked(), d.Name, up)...)
			}
		}
		for _, pool := range h.needs.Pools {
			all = append(all, h.routedPackets(pool, d.Name, up)...)
		}
	}
	all = append(all, h.packetsBetweenDevices()...)
	for i := range all {
		if all[i].dst.IsValid() {
			all[i].targetType = TypeUnicast
		}
	}
	return all
}

// routedPackets returns the packets of clients on other hosts that use this host as
// their router to VIPs, on the way to a task here and to one of another host, and
// the answers.
func (h *check) routedPackets(pool netip.Prefix, device, up string) (all []neededPacket) {
	client, vip := h.firstOfFamily(h.needs.Peers, pool.Addr()), pool.Addr().Next()
	target := func(a netip.Addr, device string) {
		if !a.IsValid() {
			return
		}
		all = append(all, h.withReply(neededPacket{destination: pool, unreported: true, packet: packet{
			in: up, out: device, src: client, dst: a, osrc: client, odst: vip, state: StateNew, status: StatusDNAT, proto: tcp,
			targetPort: h.anyTarget(),
		}})...)
	}
	target(h.firstOfFamily(h.needs.Tasks, pool.Addr()), device)
	target(h.firstOfFamily(h.needs.Backends, pool.Addr()), up)
	return all
}

// vipConnections is the purpose of packets to VIPs.
const vipConnections = "connections of containers to VIPs"

// vipPackets returns the first packet from a container to a VIP of a pool, as it is
// after translation, and the answer. The pool may be unknown.
func (h *check) vipPackets(pool netip.Prefix, device, up string) []neededPacket {
	source := h.firstOfFamily(h.needs.Tasks, pool.Addr())
	target := h.firstOfFamily(h.needs.Backends, pool.Addr())
	vip, unknown := pool.Addr().Next(), !pool.IsValid()
	return h.withReply(neededPacket{purpose: vipConnections, destination: pool, translated: unknown, packet: packet{
		in: device, out: up, src: source, dst: target, osrc: source, odst: vip, state: StateNew, status: StatusDNAT,
		proto: tcp, targetPort: h.anyTarget(),
	}})
}

// withReply returns what passes the hook forward of a connection whose first packet
// is given: that packet and the answer. If IPVS translates the connection it is only
// the answer, which conntrack does not see as translated: IPVS takes the first packet
// at the hook input and sends it itself.
func (h *check) withReply(first neededPacket) []neededPacket {
	back := first
	back.packet = first.reply()
	if first.status != 0 && h.needs.Driver == "ipvs" {
		back.status = 0
		return []neededPacket{back}
	}
	return []neededPacket{first, back}
}

// anyPort returns one of the services' ports; 0: none is known.
func (h *check) anyPort() uint32 {
	if len(h.needs.Ports) == 0 {
		return 0
	}
	return uint32(h.needs.Ports[0])
}

// anyTarget returns one of the ports at which tasks listen; 0: none is known.
func (h *check) anyTarget() uint32 {
	if len(h.needs.Targets) == 0 {
		return 0
	}
	return uint32(h.needs.Targets[0])
}

// inboundPackets returns the first packet from another host to a task here, and the answer.
func (h *check) inboundPackets(task netip.Addr, subnet netip.Prefix, device, up string) []neededPacket {
	const what = "connections of other hosts to containers of this one"
	peer := h.firstOfFamily(h.needs.Peers, task)
	return h.withReply(neededPacket{purpose: what, destination: subnet, packet: packet{
		in: up, out: device, src: peer, dst: task, osrc: peer, odst: task, state: StateNew, proto: tcp,
		targetPort: h.anyTarget(),
	}})
}

// outboundPackets returns the first packet from a task here to one of another host,
// and the answer. Sandboxes send such packets, and so do clients that look up the
// addresses of tasks.
func (h *check) outboundPackets(task netip.Addr, subnet netip.Prefix, device, up string) []neededPacket {
	const what = "connections of containers to those of other hosts"
	target := h.firstOfFamily(h.needs.Backends, task)
	return h.withReply(neededPacket{purpose: what, source: subnet, packet: packet{
		in: device, out: up, src: task, dst: target, osrc: task, odst: target, state: StateNew, proto: tcp,
		targetPort: h.anyTarget(),
	}})
}

// taskInSubnet returns a task of the host in a subnet of a device. While no task is
// registered, it returns an address that a container there could have.
func (h *check) taskInSubnet(d *Device, p netip.Prefix) netip.Addr {
	if p.IsSingleIP() || p.Addr().IsLinkLocalUnicast() {
		return netip.Addr{}
	}
	for _, a := range h.needs.Tasks {
		if p.Contains(a) && h.deviceToward(a) == d {
			return a
		}
	}
	if a := p.Addr().Next(); len(h.needs.Tasks) == 0 && p.Contains(a) {
		return a
	}
	return netip.Addr{}
}

// preroutingPackets returns the packets from other hosts to tasks here, before they
// are routed.
func (h *check) preroutingPackets() (all []neededPacket) {
	for _, p := range h.forwardedPackets() {
		if p.status == 0 && p.state == StateNew {
			p.out = ""
			all = append(all, p)
		}
	}
	return all
}

// firstOfFamily returns the first address of the family of another one. If there is
// none, the result is invalid, which stands for an address that is not known.
func (h *check) firstOfFamily(all []netip.Addr, like netip.Addr) netip.Addr {
	at := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is4() == like.Is4() })
	if at < 0 {
		return netip.Addr{}
	}
	return all[at]
}

// inputPackets returns the packets that the host itself must get: those of other
// nodes, questions of containers for names, and packets of containers to VIPs. The
// latter are refused at the hook input if no task serves, and IPVS balances there.
func (h *check) inputPackets() (all []neededPacket) {
	up := ""
	if d := h.uplink(); d != nil {
		up = d.Name
	}
	if at := h.needs.Gossip; at.Addr().IsValid() && !at.Addr().IsLoopback() {
		peer := h.firstOfFamily(h.needs.Peers, at.Addr())
		own := hostAddr(h, at.Addr(), up)
		all = append(all, neededPacket{purpose: "answers of other nodes", answer: true, packet: packet{
			in: up, src: peer, dst: own, osrc: own, odst: peer, state: StateEstablished, proto: tcp,
			sourcePort: uint32(at.Port()), targetType: TypeLocal,
		}})
		for _, proto := range []uint32{udp, tcp} {
			all = append(all, neededPacket{purpose: "packets of other nodes", listening: at, packet: packet{
				in: up, src: peer, dst: own, osrc: peer, odst: own, state: StateNew, proto: proto, targetPort: uint32(at.Port()),
				targetType: TypeLocal,
			}})
		}
	}
	for _, d := range h.containerDevices {
		for _, at := range h.needs.DNS {
			if at.Addr().IsLoopback() {
				continue
			}
			source := h.firstOfFamily(h.needs.Tasks, at.Addr())
			own := hostAddr(h, at.Addr(), d.Name)
			for _, proto := range []uint32{udp, tcp} {
				all = append(all, neededPacket{purpose: "questions of containers for names", listening: at, packet: packet{
					in: d.Name, src: source, dst: own, osrc: source, odst: own, state: StateNew, proto: proto,
					targetPort: uint32(at.Port()), targetType: TypeLocal,
				}})
			}
		}
		for _, pool := range h.needs.Pools {
			vip, source := pool.Addr().Next(), h.firstOfFamily(h.needs.Tasks, pool.Addr())
			what := "refusals of VIPs that no task serves"
			if h.needs.Driver == "ipvs" {
				what = vipConnections
			}
			kind := TypeUnicast
			if vip.Is6() {
				kind = 0 // rules for IPv6 follow routing rules
			}
			one := packet{
				in: d.Name, src: source, dst: vip, osrc: source, odst: vip, state: StateNew, proto: tcp,
				targetPort: h.anyPort(), targetType: kind,
			}
			all = append(all, neededPacket{purpose: what, destination: pool, packet: one})
			one.in, one.src = up, h.firstOfFamily(h.needs.Peers, vip) // as in routedPackets
			one.osrc = one.src
			all = append(all, neededPacket{destination: pool, unreported: true, packet: one})
		}
	}
	return all
}

// hostAddr returns the address at which packets for a listener arrive: its own, or
// one of the device if it listens on all.
func hostAddr(h *check, a netip.Addr, device string) netip.Addr {
	if !a.IsUnspecified() {
		return a
	}
	for i := range h.facts.Devices {
		if d := &h.facts.Devices[i]; d.Name == device && len(d.Prefixes) > 0 {
			return d.Prefixes[0].Addr()
		}
	}
	return netip.Addr{}
}
