// Package hostcheck checks whether meshd can work on a host (rule L13 of
// docs/DESIGN.md). It is pure: Facts say what the host is, Needs what meshd does
// there, and Findings returns what keeps meshd from doing it, each with the one
// command that corrects it.
//
// For packet filters it does not look for suspicious rules. It lists the packets
// that meshd depends on, and follows each through the chains of others: a finding
// means that the packet is certainly dropped. A rule that is not understood counts
// as one that may accept, so findings are never false.
//
// The facts are read by lb/hostread; lb/hostmend corrects what meshd may correct.
package hostcheck

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Code names a kind of finding. Programs rely on it, so a code never changes.
type Code string

// The codes.
const (
	// Packets of containers, or to them, are dropped on their way through the host.
	FirewallForward Code = "firewall-forward"
	FirewallInput   Code = "firewall-input"  // packets to the host, or a sandbox, that meshd needs are dropped
	FirewallOutput  Code = "firewall-output" // packets of a sandbox's own processes are dropped
	Hairpin         Code = "hairpin"         // a bridge does not send a packet back through the port that it came from
	ForwardingOff   Code = "forwarding"      // the host, or a device of it, does not forward packets
	IPv6Disabled    Code = "ipv6-disabled"   // a network has an IPv6 pool, and the host has no IPv6
	ReversePath     Code = "rp-filter"       // strict source validation drops what arrives by another device
	KubeProxy       Code = "kube-proxy"      // kube-proxy balances addresses of a pool
	ForeignIPVS     Code = "ipvs-foreign"    // another program has IPVS balance addresses of a pool
	SchedulerModule Code = "ipvs-module"     // a scheduler's module is not on the host
	ConntrackFull   Code = "conntrack"       // the table of connections is nearly full
	NotOurAddress   Code = "address"         // an address of the configuration is not the host's
	Unreadable      Code = "unreadable"      // a part of the host cannot be read
	Alone           Code = "alone"           // the node has found no other node
	NetNSDirectory  Code = "netns-directory" // meshd cannot write where resolv.conf of namespaces is
	Configuration   Code = "configuration"   // meshd would not start
)

// Codes returns all codes.
func Codes() []Code {
	return []Code{
		FirewallForward, FirewallInput, FirewallOutput, Hairpin, ForwardingOff, IPv6Disabled, ReversePath, KubeProxy,
		ForeignIPVS,
		SchedulerModule, ConntrackFull, NotOurAddress, Unreadable, Alone, NetNSDirectory, Configuration,
	}
}

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	Fault   Severity = "fault"   // something does not work
	Warning Severity = "warning" // something may not work
)

// Finding is one thing on this host that keeps meshd from working.
type Finding struct {
	Code     Code
	Severity Severity
	What     string // for people: the cause, and what does not work because of it
	Command  string // the one command, for a shell of root, that corrects it; empty: there is none
	Document string // the section of OPERATIONS that says more
}

// String formats the finding in one line.
func (f Finding) String() string {
	if f.Command == "" {
		return f.What
	}
	return f.What + "; mend it with: " + f.Command
}

// Sections of OPERATIONS that findings refer to.
const (
	sectionHost      = "OPERATIONS: When the host is against it"
	sectionFirewalls = "OPERATIONS: Firewalls"
)

// Facts are what a host is. The zero value is a host of which nothing is known, and
// nothing is found there.
type Facts struct {
	// Devices and neighbours.

	Devices      []Device              // all of the network namespace
	Neighbours   map[netip.Addr]string // Ethernet addresses of tasks
	Ports        map[string]string     // Ethernet address to the port of a bridge behind which it is
	RouteDevices []string              // devices by which packets to backends and peers leave

	// Packet filters.

	Chains        []Chain // of all tables of others
	BridgeFilter4 bool    // br_netfilter: bridges call iptables
	BridgeFilter6 bool    // br_netfilter: bridges call ip6tables

	// The kernel.

	Forward4       Switch           // net.ipv4.ip_forward
	Forward6       Switch           // net.ipv6.conf.all.forwarding
	Connections    int              // in conntrack's table; 0: not known
	MaxConnections int              // that conntrack's table holds; 0: not known
	IPVS           []netip.AddrPort // virtual services, whoever made them
	Schedulers     map[string]bool  // of IPVS: whether kernel or disk have them; nil: not known

	// What could not be read, or written.

	NetNSReadOnly bool     // the unit protects /etc, and /etc/netns was made after its start
	Unreadable    []string // parts of the host that could not be read, and why
}

// Switch is a setting that may be unknown.
type Switch int8

// The positions.
const (
	Unknown Switch = iota
	Off
	On
)

// Device is a network device of the host.
type Device struct {
	// What it is.

	Name     string         // as "eth0"
	Loopback bool           // it is lo
	Bridge   bool           // it has ports
	Pair     bool           // veth or tap: a container or a virtual machine of this host is at the other end
	Prefixes []netip.Prefix // its addresses, each with the length of its subnet

	// As a port of a bridge.

	Master  string // the bridge; empty: none
	Hairpin bool   // the bridge sends packets back through the port that they came from

	// Its settings. Unknown where the kernel has none.

	Forward4 Switch // net.ipv4.conf.NAME.forwarding
	Forward6 Switch // net.ipv6.conf.NAME.forwarding
	Force6   Switch // force_forwarding, since Linux 6.17: it forwards although the host does not
	NoIPv6   bool   // disable_ipv6
	Strict   bool   // rp_filter is 1, by its own setting or that of all devices
}

// Needs are what meshd does on the host, or is about to do.
type Needs struct {
	// What it may change.

	Driver           string // ipvs or nft; empty: it does not balance
	FixesHost        bool   // it sets sysctls and ports of bridges by itself
	ForwardsByDevice bool   // it makes single devices forward, not the host as a whole

	// What it serves.

	Pools      []netip.Prefix // of the networks that this host takes part in
	Networks   []Network      // of those, the ones whose tasks must reach each other
	Tasks      []netip.Addr   // that are registered here, sandboxes included; at most MaxTasks
	Ports      []uint16       // of its services, some of them
	Targets    []uint16       // where the tasks of these listen (L16), some of them
	Schedulers []string       // of its services

	// Whom it talks to.

	Backends  []netip.Addr     // tasks of other hosts, some of them
	Peers     []netip.Addr     // other nodes, some of them
	Gossip    netip.AddrPort   // where this node listens
	Advertise netip.Addr       // the address that others dial; invalid: that of Gossip
	DNS       []netip.AddrPort // where names are answered
}

// MaxTasks bounds Needs.Tasks.
const MaxTasks = 4096

// conntrackShare is how full the table of connections may be, in percent, before
// that is a finding.
const conntrackShare = 80

// MaxFindings bounds the findings, since a host may have hundreds of ports.
const MaxFindings = 64

// Findings returns what keeps meshd from working on the host, faults first, at most
// MaxFindings.
func Findings(f *Facts, n *Needs) []Finding {
	found, _ := Check(f, n)
	return found
}

// Check returns the same findings, and the rules that would make chains of others
// accept what they drop.
func Check(f *Facts, n *Needs) ([]Finding, []AcceptRule) {
	h := newCheck(f, n)
	if n.Driver != "" {
		h.checkFirewall()
		h.checkHairpin()
		h.checkForwarding()
		h.checkIPv6()
		h.checkReversePath()
		h.checkConntrack()
	}
	h.checkServices()
	h.checkAddresses()
	if f.NetNSReadOnly {
		h.addFinding(Finding{
			Code: NetNSDirectory, Severity: Warning, Command: "mkdir -p /etc/netns && systemctl restart meshd",
			What: "meshd may not write below /etc/netns, since there was no such directory when its unit started: containers " +
				"with --netns do not get a resolv.conf there",
		})
	}
	for _, what := range f.Unreadable {
		h.addFinding(Finding{Code: Unreadable, Severity: Warning, What: "not looked at: " + what})
	}
	slices.SortStableFunc(h.found, func(a, b Finding) int { return cmp.Compare(a.Severity, b.Severity) })
	return h.found, h.accepts
}

// check collects findings about one host.
type check struct {
	facts *Facts
	needs *Needs

	addressed        []*Device // devices that have addresses
	containerDevices []*Device // devices behind which containers are

	found   []Finding    // at most MaxFindings
	accepts []AcceptRule // rules that would make chains of others accept what they drop

	steps, maxSteps int // rules that were followed so far, and the most; maxSteps 0: no bound
}

// newCheck begins to check a host.
func newCheck(f *Facts, n *Needs) *check {
	h := &check{facts: f, needs: n}
	for i := range f.Devices {
		if len(f.Devices[i].Prefixes) > 0 {
			h.addressed = append(h.addressed, &f.Devices[i])
		}
	}
	h.containerDevices = h.findContainerDevices()
	return h
}

// addFinding adds a finding, unless it is known or there are too many.
func (h *check) addFinding(f Finding) {
	if len(h.found) < MaxFindings && !slices.Contains(h.found, f) {
		if f.Document == "" {
			f.Document = sectionHost
		}
		h.found = append(h.found, f)
	}
}

// deviceToward returns the device behind which an address is a neighbour; nil: none.
func (h *check) deviceToward(a netip.Addr) *Device {
	var best *Device
	bits := -1
	for _, d := range h.addressed {
		for _, p := range d.Prefixes {
			if p.Bits() > bits && p.Bits() < a.BitLen() && p.Contains(a) {
				best, bits = d, p.Bits()
			}
		}
	}
	return best
}

// uplink returns the device over which other hosts are reached; nil: not known.
func (h *check) uplink() *Device {
	for _, d := range h.addressed {
		if slices.Contains(h.facts.RouteDevices, d.Name) && !slices.Contains(h.containerDevices, d) {
			return d
		}
	}
	if d := h.deviceWith(h.needs.Gossip.Addr()); d != nil && !d.Loopback {
		return d
	}
	for _, d := range h.addressed {
		if !d.Loopback && !d.Bridge && d.Master == "" {
			return d
		}
	}
	return nil
}

// deviceWith returns the device that has an address; nil: none.
func (h *check) deviceWith(a netip.Addr) *Device {
	for _, d := range h.addressed {
		if slices.ContainsFunc(d.Prefixes, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return d
		}
	}
	return nil
}

// findContainerDevices returns the devices behind which registered tasks are. While
// no task is registered it returns every bridge, since containers will be there.
func (h *check) findContainerDevices() (all []*Device) {
	for _, a := range h.needs.Tasks {
		if d := h.deviceToward(a); d != nil && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	if len(h.needs.Tasks) > 0 {
		return all
	}
	for _, d := range h.addressed {
		if d.Bridge {
			all = append(all, d)
		}
	}
	return all
}

// needsIPv6 reports whether IPv6 is needed.
func (h *check) needsIPv6() bool {
	return slices.ContainsFunc(h.needs.Pools, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// joinWords joins words for people, as "a, b and c".
func joinWords(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}
