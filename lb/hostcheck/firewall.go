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

// passage is a packet, what does not work if it is dropped, and what has to be
// let through for it: one of the rest.
type neededPacket struct {
	packet
	purpose     string
	destination netip.Prefix   // destinations of connections, before translation
	source      netip.Prefix   // sources of connections
	listening   netip.AddrPort // destination of packets to the host
	translated  bool           // whatever was translated, since no pool is known yet
	unreported  bool           // few have such packets: it is let through, and not told
	loopback    bool           // whatever stays inside
	answer      bool           // whatever belongs to a connection that there is
}

// denied is what one base chain drops.
type denied struct {
	chain        *Chain
	cause        string
	purposes     []string
	destinations []netip.Prefix
	pools        map[netip.Prefix]bool // those of orig that are pools
	sources      []netip.Prefix
	listening    []listener

	translated bool
	loopback   bool
	answers    bool
}

type listener struct {
	at    netip.AddrPort
	proto uint32
}

// firewall asks the chains of others what becomes of the packets that meshd
// lives of.
func (j *check) checkFirewall() {
	rules := j.ruleset()
	for i := range j.facts.Chains {
		base := &j.facts.Chains[i]
		switch base.Hook {
		case Forward:
			j.checkChain(rules, base, FirewallForward, j.forwardedPackets())
		case Input:
			j.checkChain(rules, base, FirewallInput, j.inputPackets())
		case Prerouting:
			j.checkChain(rules, base, FirewallForward, j.preroutingPackets())
		}
	}
}

// ruleset returns the chains by name.
func (j *check) ruleset() ruleset {
	rules := ruleset{}
	for i := range j.facts.Chains {
		rules[j.facts.Chains[i].key()] = &j.facts.Chains[i]
	}
	return rules
}

// ask finds what a base chain drops of the packets.
func (j *check) checkChain(rules ruleset, base *Chain, code Code, packets []neededPacket) {
	d := denied{chain: base, pools: map[netip.Prefix]bool{}}
	for _, p := range j.needs.Pools {
		d.pools[p] = true
	}
	var quiet []netip.Prefix
	for i := range packets {
		p := &packets[i]
		if j.maxSteps > 0 && j.steps > j.maxSteps {
			return // what was found of this chain is not all of it
		}
		w, steps := rules.evaluate(base, &p.packet)
		j.steps += steps
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
	j.accepts = append(j.accepts, (&denied{chain: base, pools: d.pools, destinations: quiet}).acceptRules(rules)...)
	if len(d.purposes) == 0 {
		return
	}
	lets := d.acceptRules(rules)
	var lines []string
	for _, l := range lets {
		lines = append(lines, shellCommand(l.Command("", false)...))
	}
	j.accepts = append(j.accepts, lets...)
	j.addFinding(Finding{
		Code: code, Severity: Fault, Command: strings.Join(lines, " && "), Document: sectionFirewalls,
		What: fmt.Sprintf("%s: %s do not get through", d.cause, joinWords(d.purposes)),
	})
}

func addOnce[T comparable](all *[]T, one T) {
	if !slices.Contains(*all, one) {
		*all = append(*all, one)
	}
}

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

// forwarded returns packets of connections through VIPs, in both directions, and
// of connections of others to tasks of this host.
func (j *check) forwardedPackets() (all []neededPacket) {
	up := ""
	if d := j.uplink(); d != nil {
		up = d.Name
	}
	for _, d := range j.containerDevices {
		for _, pool := range j.needs.Pools {
			all = append(all, j.vipPackets(pool, d.Name, up)...)
		}
		if len(j.needs.Pools) == 0 {
			all = append(all, j.vipPackets(netip.Prefix{}, d.Name, up)...)
		}
		for _, p := range d.Prefixes {
			if a := j.taskInSubnet(d, p); a.IsValid() {
				all = append(all, j.inboundPackets(a, p.Masked(), d.Name, up)...)
				all = append(all, j.outboundPackets(a, p.Masked(), d.Name, up)...)
			}
		}
		for _, pool := range j.needs.Pools {
			all = append(all, j.routedPackets(pool, d.Name, up)...)
		}
	}
	all = append(all, j.packetsBetweenDevices()...)
	for i := range all {
		if all[i].dst.IsValid() {
			all[i].targetType = TypeUnicast
		}
	}
	return all
}

// routed returns packets of clients elsewhere that send what is for VIPs by this
// host, as a router does, on their way to a task here and to one of another host,
// and the answers.
func (j *check) routedPackets(pool netip.Prefix, device, up string) (all []neededPacket) {
	client, vip := j.firstOfFamily(j.needs.Peers, pool.Addr()), pool.Addr().Next()
	target := func(a netip.Addr, device string) {
		if !a.IsValid() {
			return
		}
		all = append(all, j.withReply(neededPacket{destination: pool, unreported: true, packet: packet{
			in: up, out: device, src: client, dst: a, osrc: client, odst: vip, state: StateNew, status: StatusDNAT, proto: tcp,
			targetPort: j.anyPort(),
		}})...)
	}
	target(j.firstOfFamily(j.needs.Tasks, pool.Addr()), device)
	target(j.firstOfFamily(j.needs.Backends, pool.Addr()), up)
	return all
}

// vips is what does not work without them.
const vipConnections = "connections of containers to VIPs"

// through returns the first packet from a container to a VIP of a pool, as it is
// behind the translation, and the answer. The pool may be unknown.
func (j *check) vipPackets(pool netip.Prefix, device, up string) []neededPacket {
	source := j.firstOfFamily(j.needs.Tasks, pool.Addr())
	target := j.firstOfFamily(j.needs.Backends, pool.Addr())
	vip, unknown := pool.Addr().Next(), !pool.IsValid()
	return j.withReply(neededPacket{purpose: vipConnections, destination: pool, translated: unknown, packet: packet{
		in: device, out: up, src: source, dst: target, osrc: source, odst: vip, state: StateNew, status: StatusDNAT,
		proto: tcp, targetPort: j.anyPort(),
	}})
}

// exchange returns what is forwarded of a connection whose first packet is given:
// that, and the answer. Of what IPVS translates it is the answer alone, which
// conntrack does not take for translated: IPVS sends on what the hook input hands it.
func (j *check) withReply(first neededPacket) []neededPacket {
	back := first
	back.packet = first.reply()
	if first.status != 0 && j.needs.Driver == "ipvs" {
		back.status = 0
		return []neededPacket{back}
	}
	return []neededPacket{first, back}
}

// port returns one of the services' ports; 0: none is known.
func (j *check) anyPort() uint32 {
	if len(j.needs.Ports) == 0 {
		return 0
	}
	return uint32(j.needs.Ports[0])
}

// to returns the first packet from another host to a task here, and the answer.
func (j *check) inboundPackets(task netip.Addr, subnet netip.Prefix, device, up string) []neededPacket {
	const what = "connections of other hosts to containers of this one"
	peer := j.firstOfFamily(j.needs.Peers, task)
	return j.withReply(neededPacket{purpose: what, destination: subnet, packet: packet{
		in: up, out: device, src: peer, dst: task, osrc: peer, odst: task, state: StateNew, proto: tcp,
		targetPort: j.anyPort(),
	}})
}

// direct returns the first packet from a task here to one of another host, as
// sandboxes send it and whoever asked for the addresses of tasks, and the answer.
func (j *check) outboundPackets(task netip.Addr, subnet netip.Prefix, device, up string) []neededPacket {
	const what = "connections of containers to those of other hosts"
	target := j.firstOfFamily(j.needs.Backends, task)
	return j.withReply(neededPacket{purpose: what, source: subnet, packet: packet{
		in: device, out: up, src: task, dst: target, osrc: task, odst: target, state: StateNew, proto: tcp,
		targetPort: j.anyPort(),
	}})
}

// taskIn returns a task of the host in a subnet of a device; while none is
// registered, an address that a container there might have.
func (j *check) taskInSubnet(d *Device, p netip.Prefix) netip.Addr {
	if p.IsSingleIP() || p.Addr().IsLinkLocalUnicast() {
		return netip.Addr{}
	}
	for _, a := range j.needs.Tasks {
		if p.Contains(a) && j.deviceToward(a) == d {
			return a
		}
	}
	if a := p.Addr().Next(); len(j.needs.Tasks) == 0 && p.Contains(a) {
		return a
	}
	return netip.Addr{}
}

// arriving returns packets of other hosts to tasks here, before they are routed.
func (j *check) preroutingPackets() (all []neededPacket) {
	for _, p := range j.forwardedPackets() {
		if p.status == 0 && p.state == StateNew {
			p.out = ""
			all = append(all, p)
		}
	}
	return all
}

// first returns an address of the family of another; none: an invalid one, of
// which nothing is known.
func (j *check) firstOfFamily(all []netip.Addr, like netip.Addr) netip.Addr {
	at := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is4() == like.Is4() })
	if at < 0 {
		return netip.Addr{}
	}
	return all[at]
}

// received returns packets that the host itself must get: of other nodes, of
// containers that ask for names, and of containers to VIPs, which are refused
// there if no task serves, and which IPVS balances there.
func (j *check) inputPackets() (all []neededPacket) {
	up := ""
	if d := j.uplink(); d != nil {
		up = d.Name
	}
	if at := j.needs.Gossip; at.Addr().IsValid() && !at.Addr().IsLoopback() {
		peer := j.firstOfFamily(j.needs.Peers, at.Addr())
		own := hostAddr(j, at.Addr(), up)
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
	for _, d := range j.containerDevices {
		for _, at := range j.needs.DNS {
			if at.Addr().IsLoopback() {
				continue
			}
			source := j.firstOfFamily(j.needs.Tasks, at.Addr())
			own := hostAddr(j, at.Addr(), d.Name)
			for _, proto := range []uint32{udp, tcp} {
				all = append(all, neededPacket{purpose: "questions of containers for names", listening: at, packet: packet{
					in: d.Name, src: source, dst: own, osrc: source, odst: own, state: StateNew, proto: proto,
					targetPort: uint32(at.Port()), targetType: TypeLocal,
				}})
			}
		}
		for _, pool := range j.needs.Pools {
			vip, source := pool.Addr().Next(), j.firstOfFamily(j.needs.Tasks, pool.Addr())
			what := "refusals of VIPs that no task serves"
			if j.needs.Driver == "ipvs" {
				what = vipConnections
			}
			kind := TypeUnicast
			if vip.Is6() {
				kind = 0 // rules for IPv6 follow routing rules
			}
			one := packet{
				in: d.Name, src: source, dst: vip, osrc: source, odst: vip, state: StateNew, proto: tcp,
				targetPort: j.anyPort(), targetType: kind,
			}
			all = append(all, neededPacket{purpose: what, destination: pool, packet: one})
			one.in, one.src = up, j.firstOfFamily(j.needs.Peers, vip) // as in routed
			one.osrc = one.src
			all = append(all, neededPacket{destination: pool, unreported: true, packet: one})
		}
	}
	return all
}

// hostAddr returns an address that is listened on; of all addresses, one of the
// device.
func hostAddr(j *check, a netip.Addr, device string) netip.Addr {
	if !a.IsUnspecified() {
		return a
	}
	for i := range j.facts.Devices {
		if d := &j.facts.Devices[i]; d.Name == device && len(d.Prefixes) > 0 {
			return d.Prefixes[0].Addr()
		}
	}
	return netip.Addr{}
}
