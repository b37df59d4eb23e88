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
type passage struct {
	packet
	what       string
	orig       netip.Prefix   // destinations of connections, before translation
	from       netip.Prefix   // sources of connections
	local      netip.AddrPort // destination of packets to the host
	translated bool           // whatever was translated, since no pool is known yet
	quiet      bool           // few have such packets: it is let through, and not told
	loopback   bool           // whatever stays inside
	answer     bool           // whatever belongs to a connection that there is
}

// denied is what one base chain drops.
type denied struct {
	chain *Chain
	how   string
	what  []string
	orig  []netip.Prefix
	pools map[netip.Prefix]bool // those of orig that are pools
	from  []netip.Prefix
	local []local

	translated bool
	loopback   bool
	answers    bool
}

type local struct {
	at    netip.AddrPort
	proto uint32
}

// firewall asks the chains of others what becomes of the packets that meshd
// lives of.
func (j *judgement) firewall() {
	rules := j.ruleset()
	for i := range j.facts.Chains {
		base := &j.facts.Chains[i]
		switch base.Hook {
		case Forward:
			j.ask(rules, base, FirewallForward, j.forwarded())
		case Input:
			j.ask(rules, base, FirewallInput, j.received())
		case Prerouting:
			j.ask(rules, base, FirewallForward, j.arriving())
		}
	}
}

// ruleset returns the chains by name.
func (j *judgement) ruleset() ruleset {
	rules := ruleset{}
	for i := range j.facts.Chains {
		rules[j.facts.Chains[i].key()] = &j.facts.Chains[i]
	}
	return rules
}

// ask finds what a base chain drops of the packets.
func (j *judgement) ask(rules ruleset, base *Chain, code Code, packets []passage) {
	d := denied{chain: base, pools: map[netip.Prefix]bool{}}
	for _, p := range j.needs.Pools {
		d.pools[p] = true
	}
	var quiet []netip.Prefix
	for i := range packets {
		p := &packets[i]
		if j.most > 0 && j.steps > j.most {
			return // what was found of this chain is not all of it
		}
		w, steps := rules.drops(base, &p.packet)
		j.steps += steps
		if w == nil {
			continue
		}
		if p.quiet {
			addOnce(&quiet, p.orig)
			continue
		}
		if d.how == "" {
			d.how = how(base, w)
		}
		addOnce(&d.what, p.what)
		if p.orig.IsValid() {
			addOnce(&d.orig, p.orig)
		}
		if p.from.IsValid() {
			addOnce(&d.from, p.from)
		}
		if p.local.IsValid() {
			addOnce(&d.local, local{p.local, p.proto})
		}
		d.translated, d.loopback, d.answers = d.translated || p.translated, d.loopback || p.loopback, d.answers || p.answer
	}
	quiet = slices.DeleteFunc(quiet, func(p netip.Prefix) bool { return slices.Contains(d.orig, p) })
	j.lets = append(j.lets, (&denied{chain: base, pools: d.pools, orig: quiet}).lets(rules)...)
	if len(d.what) == 0 {
		return
	}
	lets := d.lets(rules)
	var lines []string
	for _, l := range lets {
		lines = append(lines, line(l.Words("", false)...))
	}
	j.lets = append(j.lets, lets...)
	j.add(Finding{
		Code: code, Severity: Fault, Command: strings.Join(lines, " && "), Document: sectionFirewalls,
		What: fmt.Sprintf("%s: %s do not get through", d.how, list(d.what)),
	})
}

func addOnce[T comparable](all *[]T, one T) {
	if !slices.Contains(*all, one) {
		*all = append(*all, one)
	}
}

func how(base *Chain, w *walk) string {
	name := base.String()
	switch {
	case w.policy:
		return fmt.Sprintf("the policy of %s (hook %s) is drop", name, base.Hook)
	case w.by != base:
		return fmt.Sprintf("a rule of chain %s, of %s (hook %s), drops packets", w.by.Name, name, base.Hook)
	}
	return fmt.Sprintf("a rule of %s (hook %s) drops packets", name, base.Hook)
}

// forwarded returns packets of connections through VIPs, in both directions, and
// of connections of others to tasks of this host.
func (j *judgement) forwarded() (all []passage) {
	up := ""
	if d := j.uplink(); d != nil {
		up = d.Name
	}
	for _, d := range j.hosted {
		for _, pool := range j.needs.Pools {
			all = append(all, j.through(pool, d.Name, up)...)
		}
		if len(j.needs.Pools) == 0 {
			all = append(all, j.through(netip.Prefix{}, d.Name, up)...)
		}
		for _, p := range d.Prefixes {
			if a := j.taskIn(d, p); a.IsValid() {
				all = append(all, j.to(a, p.Masked(), d.Name, up)...)
				all = append(all, j.direct(a, p.Masked(), d.Name, up)...)
			}
		}
		for _, pool := range j.needs.Pools {
			all = append(all, j.routed(pool, d.Name, up)...)
		}
	}
	all = append(all, j.between()...)
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
func (j *judgement) routed(pool netip.Prefix, device, up string) (all []passage) {
	client, vip := j.first(j.needs.Peers, pool.Addr()), pool.Addr().Next()
	target := func(a netip.Addr, device string) {
		if !a.IsValid() {
			return
		}
		all = append(all, j.exchange(passage{orig: pool, quiet: true, packet: packet{
			in: up, out: device, src: client, dst: a, osrc: client, odst: vip, state: StateNew, status: StatusDNAT, proto: tcp,
			targetPort: j.port(),
		}})...)
	}
	target(j.first(j.needs.Tasks, pool.Addr()), device)
	target(j.first(j.needs.Backends, pool.Addr()), up)
	return all
}

// vips is what does not work without them.
const vips = "connections of containers to VIPs"

// through returns the first packet from a container to a VIP of a pool, as it is
// behind the translation, and the answer. The pool may be unknown.
func (j *judgement) through(pool netip.Prefix, device, up string) []passage {
	source := j.first(j.needs.Tasks, pool.Addr())
	target := j.first(j.needs.Backends, pool.Addr())
	vip, unknown := pool.Addr().Next(), !pool.IsValid()
	return j.exchange(passage{what: vips, orig: pool, translated: unknown, packet: packet{
		in: device, out: up, src: source, dst: target, osrc: source, odst: vip, state: StateNew, status: StatusDNAT,
		proto: tcp, targetPort: j.port(),
	}})
}

// exchange returns what is forwarded of a connection whose first packet is given:
// that, and the answer. Of what IPVS translates it is the answer alone, which
// conntrack does not take for translated: IPVS sends on what the hook input hands it.
func (j *judgement) exchange(first passage) []passage {
	back := first
	back.packet = first.reply()
	if first.status != 0 && j.needs.Driver == "ipvs" {
		back.status = 0
		return []passage{back}
	}
	return []passage{first, back}
}

// port returns one of the services' ports; 0: none is known.
func (j *judgement) port() uint32 {
	if len(j.needs.Ports) == 0 {
		return 0
	}
	return uint32(j.needs.Ports[0])
}

// to returns the first packet from another host to a task here, and the answer.
func (j *judgement) to(task netip.Addr, subnet netip.Prefix, device, up string) []passage {
	const what = "connections of other hosts to containers of this one"
	peer := j.first(j.needs.Peers, task)
	return j.exchange(passage{what: what, orig: subnet, packet: packet{
		in: up, out: device, src: peer, dst: task, osrc: peer, odst: task, state: StateNew, proto: tcp, targetPort: j.port(),
	}})
}

// direct returns the first packet from a task here to one of another host, as
// sandboxes send it and whoever asked for the addresses of tasks, and the answer.
func (j *judgement) direct(task netip.Addr, subnet netip.Prefix, device, up string) []passage {
	const what = "connections of containers to those of other hosts"
	target := j.first(j.needs.Backends, task)
	return j.exchange(passage{what: what, from: subnet, packet: packet{
		in: device, out: up, src: task, dst: target, osrc: task, odst: target, state: StateNew, proto: tcp,
		targetPort: j.port(),
	}})
}

// taskIn returns a task of the host in a subnet of a device; while none is
// registered, an address that a container there might have.
func (j *judgement) taskIn(d *Device, p netip.Prefix) netip.Addr {
	if p.IsSingleIP() || p.Addr().IsLinkLocalUnicast() {
		return netip.Addr{}
	}
	for _, a := range j.needs.Tasks {
		if p.Contains(a) && j.device(a) == d {
			return a
		}
	}
	if a := p.Addr().Next(); len(j.needs.Tasks) == 0 && p.Contains(a) {
		return a
	}
	return netip.Addr{}
}

// arriving returns packets of other hosts to tasks here, before they are routed.
func (j *judgement) arriving() (all []passage) {
	for _, p := range j.forwarded() {
		if p.status == 0 && p.state == StateNew {
			p.out = ""
			all = append(all, p)
		}
	}
	return all
}

// first returns an address of the family of another; none: an invalid one, of
// which nothing is known.
func (j *judgement) first(all []netip.Addr, like netip.Addr) netip.Addr {
	at := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is4() == like.Is4() })
	if at < 0 {
		return netip.Addr{}
	}
	return all[at]
}

// received returns packets that the host itself must get: of other nodes, of
// containers that ask for names, and of containers to VIPs, which are refused
// there if no task serves, and which IPVS balances there.
func (j *judgement) received() (all []passage) {
	up := ""
	if d := j.uplink(); d != nil {
		up = d.Name
	}
	if at := j.needs.Gossip; at.Addr().IsValid() && !at.Addr().IsLoopback() {
		peer := j.first(j.needs.Peers, at.Addr())
		own := hostAddr(j, at.Addr(), up)
		all = append(all, passage{what: "answers of other nodes", answer: true, packet: packet{
			in: up, src: peer, dst: own, osrc: own, odst: peer, state: StateEstablished, proto: tcp,
			sourcePort: uint32(at.Port()), targetType: TypeLocal,
		}})
		for _, proto := range []uint32{udp, tcp} {
			all = append(all, passage{what: "packets of other nodes", local: at, packet: packet{
				in: up, src: peer, dst: own, osrc: peer, odst: own, state: StateNew, proto: proto, targetPort: uint32(at.Port()),
				targetType: TypeLocal,
			}})
		}
	}
	for _, d := range j.hosted {
		for _, at := range j.needs.DNS {
			if at.Addr().IsLoopback() {
				continue
			}
			source := j.first(j.needs.Tasks, at.Addr())
			own := hostAddr(j, at.Addr(), d.Name)
			for _, proto := range []uint32{udp, tcp} {
				all = append(all, passage{what: "questions of containers for names", local: at, packet: packet{
					in: d.Name, src: source, dst: own, osrc: source, odst: own, state: StateNew, proto: proto,
					targetPort: uint32(at.Port()), targetType: TypeLocal,
				}})
			}
		}
		for _, pool := range j.needs.Pools {
			vip, source := pool.Addr().Next(), j.first(j.needs.Tasks, pool.Addr())
			what := "refusals of VIPs that no task serves"
			if j.needs.Driver == "ipvs" {
				what = vips
			}
			kind := TypeUnicast
			if vip.Is6() {
				kind = 0 // rules for IPv6 follow routing rules
			}
			one := packet{
				in: d.Name, src: source, dst: vip, osrc: source, odst: vip, state: StateNew, proto: tcp,
				targetPort: j.port(), targetType: kind,
			}
			all = append(all, passage{what: what, orig: pool, packet: one})
			one.in, one.src = up, j.first(j.needs.Peers, vip) // as in routed
			one.osrc = one.src
			all = append(all, passage{orig: pool, quiet: true, packet: one})
		}
	}
	return all
}

// hostAddr returns an address that is listened on; of all addresses, one of the
// device.
func hostAddr(j *judgement, a netip.Addr, device string) netip.Addr {
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
