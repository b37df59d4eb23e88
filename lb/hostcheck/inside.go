package hostcheck

import (
	"net/netip"
	"slices"
	"strings"
)

// Inside is what meshd does inside a container that has a load balancer and a name
// server of its own, and what the container's processes need there.
type Inside struct {
	Name      string
	Enter     []string // the words before a command that run it inside
	Driver    string   // empty: it does not balance there
	Pools     []netip.Prefix
	Addresses []netip.Addr // of the container
	DNS       netip.AddrPort
	Serves    []Listen // where its task listens, some of it
}

// Listen is a port of a task; Number 0 stands for all.
type Listen struct {
	Number uint16
	UDP    bool
}

// maxStepsInside bounds the rules that are looked at for all packets and chains of
// one container. Whoever owns it can make a thousand chains of a hook that lead to
// the same few of others in thousands of ways.
const maxStepsInside = 1 << 18

// FindingsInside returns what of a container is against meshd: what its own filters
// drop for certain, IPv6 that is switched off while it has addresses and a pool of
// IPv6, and a table of connections that is nearly full. A filter that lets anything
// of the kind pass is taken for what its owner wants.
func FindingsInside(f *Facts, n *Inside) []Finding {
	j := newCheck(f, &Needs{Driver: n.Driver, Pools: n.Pools})
	j.maxSteps = maxStepsInside
	rules := j.ruleset()
	for i := range f.Chains {
		switch base := &f.Chains[i]; base.Hook {
		case Input:
			j.checkChain(rules, base, FirewallInput, n.packets(j, true))
		case Output:
			j.checkChain(rules, base, FirewallOutput, n.packets(j, false))
		}
	}
	if slices.ContainsFunc(n.Addresses, netip.Addr.Is6) {
		j.checkIPv6()
	}
	for i := range j.found {
		j.found[i] = j.found[i].runInside(n)
	}
	j.checkConntrack() // its size is the host's to set
	unreadable := f.Unreadable
	if j.steps > j.maxSteps {
		unreadable = append(slices.Clip(unreadable), "packet filters: it takes too long to know what becomes of a packet")
	}
	for _, what := range unreadable {
		j.addFinding(Finding{Code: Unreadable, Severity: Warning, What: "not looked at: " + what})
	}
	for i := range j.found {
		j.found[i].What = "sandbox " + n.Name + ": " + j.found[i].What
	}
	return j.found
}

// inside makes a finding's command one that is typed on the host.
func (f Finding) runInside(n *Inside) Finding {
	switch {
	case f.Command == "":
	case strings.Contains(f.Command, "&&"):
		f.Command = shellCommand(append(slices.Clone(n.Enter), "sh", "-c", f.Command)...)
	default:
		f.Command = shellCommand(n.Enter...) + " " + f.Command
	}
	return f
}

// packets returns those that come into the container, or that leave its processes.
// Of what is at the other end nothing is known.
func (n *Inside) packets(j *check, in bool) (all []neededPacket) {
	at := func(p neededPacket, device string) {
		if in {
			p.in = device
		} else {
			p.out = device
		}
		all = append(all, p)
	}
	for _, a := range n.Addresses {
		device := ""
		if d := j.deviceWith(a); d != nil {
			device = d.Name
		}
		own := netip.PrefixFrom(a, a.BitLen())
		for _, pool := range n.Pools {
			if n.Driver == "" || pool.Addr().Is4() != a.Is4() {
				continue
			}
			p := neededPacket{purpose: "connections of its processes to VIPs", destination: pool}
			if in {
				p.packet = packet{dst: a, osrc: a, state: StateEstablished, status: StatusDNAT, proto: tcp}
			} else {
				p.packet = packet{src: a, osrc: a, state: StateNew, status: StatusDNAT, proto: tcp}
			}
			at(p, device)
		}
		for _, l := range n.Serves {
			p := neededPacket{purpose: "connections to its task", destination: own}
			proto, port := uint32(tcp), uint32(l.Number)
			if l.UDP {
				proto = udp
			}
			if in {
				p.packet = packet{dst: a, odst: a, state: StateNew, proto: proto, targetPort: port}
			} else {
				p.packet = packet{src: a, odst: a, state: StateEstablished, proto: proto, sourcePort: port}
			}
			at(p, device)
		}
	}
	for _, p := range n.dnsPackets() {
		at(p, "lo")
	}
	return all
}

// questions returns a question of a process to the name server and its answer: both
// pass all hooks of the container.
func (n *Inside) dnsPackets() []neededPacket {
	if !n.DNS.IsValid() {
		return nil
	}
	server := n.DNS.Addr()
	ask := packet{dst: server, state: StateNew, status: StatusDNAT, proto: udp}
	answer := packet{src: server, state: StateEstablished, status: StatusDNAT, proto: udp}
	const what = "questions for names"
	return []neededPacket{{purpose: what, loopback: true, packet: ask}, {purpose: what, loopback: true, packet: answer}}
}
