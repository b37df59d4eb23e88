package hostcheck

import (
	"net/netip"
	"slices"
	"strings"
)

// Inside is what meshd does inside a container that has a load balancer and a name
// server of its own, and what the container's processes need there.
type Inside struct {
	Name      string         // of the sandbox
	Enter     []string       // the words before a command that make it run inside
	Driver    string         // empty: it does not balance there
	Pools     []netip.Prefix // of the sandbox's networks
	Addresses []netip.Addr   // of the container
	DNS       netip.AddrPort // its name server; the zero value: none
	Serves    []Listen       // where its task listens, some of the ports
}

// Listen is a port of a task; Number 0 stands for all.
type Listen struct {
	Number uint16
	UDP    bool
}

// maxStepsInside bounds the rules that are followed for all packets and chains of one
// container. Its owner can make a thousand base chains that lead to the same chains
// in thousands of ways.
const maxStepsInside = 1 << 18

// FindingsInside returns what keeps meshd from working in a container: packets that
// its own filters certainly drop, IPv6 that is switched off while it has addresses and
// a pool of IPv6, and a table of connections that is nearly full. The other end and
// the port of a packet are not known, so a filter that accepts some packets of a kind
// is no finding: that is its owner's policy.
func FindingsInside(f *Facts, n *Inside) []Finding {
	h := newCheck(f, &Needs{Driver: n.Driver, Pools: n.Pools})
	h.maxSteps = maxStepsInside
	rules := h.ruleset()
	for i := range f.Chains {
		switch base := &f.Chains[i]; base.Hook {
		case Input:
			h.checkChain(rules, base, FirewallInput, n.packets(h, true))
		case Output:
			h.checkChain(rules, base, FirewallOutput, n.packets(h, false))
		}
	}
	if slices.ContainsFunc(n.Addresses, netip.Addr.Is6) {
		h.checkIPv6()
	}
	for i := range h.found {
		h.found[i] = h.found[i].runInside(n)
	}
	h.checkConntrack() // its size is the host's to set
	unreadable := f.Unreadable
	if h.steps > h.maxSteps {
		unreadable = append(slices.Clip(unreadable), "packet filters: it takes too long to know what becomes of a packet")
	}
	for _, what := range unreadable {
		h.addFinding(Finding{Code: Unreadable, Severity: Warning, What: "not looked at: " + what})
	}
	for i := range h.found {
		h.found[i].What = "sandbox " + n.Name + ": " + h.found[i].What
	}
	return h.found
}

// runInside changes a finding's command so that it is typed on the host and runs in
// the container.
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

// packets returns the packets that come into the container, or those that leave its
// processes. Their other end is not known.
func (n *Inside) packets(h *check, in bool) (all []neededPacket) {
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
		if d := h.deviceWith(a); d != nil {
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

// dnsPackets returns a question of a process to the name server and its answer. Both
// pass the hooks output and input of the container.
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
