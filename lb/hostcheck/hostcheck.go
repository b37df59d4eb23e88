// Package hostcheck judges whether a host lets meshd do its work (rule L13 of
// docs/DESIGN.md). It is pure: Facts say what the host is, Needs what meshd does
// there, and Findings says what of the host is against it, each with the one
// command that mends it. Reading the facts is the work of lb/hostread.
package hostcheck

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Code names a kind of finding. Programs rely on it; one never changes.
type Code string

// The codes.
const (
	// packets of containers, or to them, are dropped on their way through the host
	FirewallForward Code = "firewall-forward"
	FirewallInput   Code = "firewall-input"  // packets to the host, or a sandbox, that meshd needs are dropped
	FirewallOutput  Code = "firewall-output" // packets of a sandbox's own processes are dropped
	Hairpin         Code = "hairpin"         // a bridge does not send a packet back through the port that it came from
	ForwardingOff   Code = "forwarding"      // the host, or a device of it, does not forward packets
	IPv6Disabled    Code = "ipv6-disabled"   // a network has an IPv6 pool, and the host has no IPv6
	ReversePath     Code = "rp-filter"       // strict source validation drops what arrives by another device
	KubeProxy       Code = "kube-proxy"      // kube-proxy balances addresses of a pool
	ForeignIPVS     Code = "ipvs-foreign"    // IPVS balances addresses of a pool for somebody else
	SchedulerModule Code = "ipvs-module"     // a scheduler's module is not on the host
	ConntrackFull   Code = "conntrack"       // the table of connections is nearly full
	NotOurAddress   Code = "address"         // an address of the configuration is not the host's
	Unreadable      Code = "unreadable"      // a part of the host cannot be looked at
	Alone           Code = "alone"           // the node has joined nobody
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

// Finding is one thing that is against meshd on this host.
type Finding struct {
	Code     Code
	Severity Severity
	What     string // for people: what is so, and what does not work for that reason
	Command  string // the one command, for a shell of root, that mends it; empty: there is none
	Document string // the section of OPERATIONS that says more
}

// String formats the finding in one line.
func (f Finding) String() string {
	if f.Command == "" {
		return f.What
	}
	return f.What + "; mend it with: " + f.Command
}

// sections of OPERATIONS that findings lead to.
const (
	sectionHost      = "OPERATIONS: When the host is against it"
	sectionFirewalls = "OPERATIONS: Firewalls"
)

// Facts are what a host is. The zero value is a host of which nothing is known,
// and nothing is found there.
type Facts struct {
	Devices []Device
	Chains  []Chain // of all tables of others
	// Neighbours are Ethernet addresses of IP addresses, and Ports the ports of
	// bridges behind which Ethernet addresses are.
	Neighbours   map[netip.Addr]string
	Ports        map[string]string
	RouteDevices []string // devices that lead to the backends and peers that were asked about

	BridgeFilter4, BridgeFilter6 bool // br_netfilter: bridges call iptables
	Forward4, Forward6           Switch
	Connections, MaxConnections  int // of conntrack; 0: not known
	IPVS                         []netip.AddrPort
	// of IPVS: whether the kernel has it, or its module is there; nil: not known
	Schedulers    map[string]bool
	NetNSReadOnly bool     // under a unit that protects /etc, where /etc/netns was made later
	Unreadable    []string // parts that could not be looked at, and why
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
	Name     string
	Loopback bool
	Bridge   bool
	Master   string // the bridge that it is a port of
	Hairpin  bool   // of ports
	Pair     bool   // veth or tap: a container or a virtual machine of this host is at the other end
	Prefixes []netip.Prefix
	Forward4 Switch
	Forward6 Switch
	Force6   Switch // force_forwarding, of Linux 6.17 and later: it forwards though the host does not
	NoIPv6   bool   // disable_ipv6
	Strict   bool   // rp_filter is 1
}

// Needs are what meshd does on the host, or is to do.
type Needs struct {
	ForwardsByDevice bool           // it makes those devices forward that it needs, not the host
	Driver           string         // ipvs, nft; empty: it does not balance
	FixesHost        bool           // it sets sysctls and ports by itself
	Pools            []netip.Prefix // of the networks that this host takes part in
	Tasks            []netip.Addr   // that are registered here, sandboxes included: MaxTasks at most
	Networks         []Network      // of those, whose tasks have to reach each other
	Ports            []uint16       // of its services, some of them
	Backends         []netip.Addr   // of other hosts, some of them
	Peers            []netip.Addr   // other nodes, some of them
	Gossip           netip.AddrPort // where this node listens
	Advertise        netip.Addr     // what others dial; invalid: the address of Gossip
	DNS              []netip.AddrPort
	Schedulers       []string // of its services
}

// MaxTasks bounds the tasks that are looked at.
const MaxTasks = 4096

// conntrackShare of the table of connections, in percent, is told.
const conntrackShare = 80

// MaxFindings bounds what is found: a host may have hundreds of ports.
const MaxFindings = 64

// Findings returns what of the host is against meshd, faults first. At most
// MaxFindings are returned.
func Findings(f *Facts, n *Needs) []Finding {
	found, _ := Check(f, n)
	return found
}

// Judge is Findings, and returns the rules with which chains of others would let
// through what they drop.
func Check(f *Facts, n *Needs) ([]Finding, []AcceptRule) {
	j := newCheck(f, n)
	if n.Driver != "" {
		j.checkFirewall()
		j.checkHairpin()
		j.checkForwarding()
		j.checkIPv6()
		j.checkReversePath()
		j.checkConntrack()
	}
	j.checkServices()
	j.checkAddresses()
	if f.NetNSReadOnly {
		j.addFinding(Finding{
			Code: NetNSDirectory, Severity: Warning, Command: "mkdir -p /etc/netns && systemctl restart meshd",
			What: "meshd may not write below /etc/netns, since there was no such directory when its unit started: containers " +
				"with --netns do not get a resolv.conf there",
		})
	}
	for _, what := range f.Unreadable {
		j.addFinding(Finding{Code: Unreadable, Severity: Warning, What: "not looked at: " + what})
	}
	slices.SortStableFunc(j.found, func(a, b Finding) int { return cmp.Compare(a.Severity, b.Severity) })
	return j.found, j.accepts
}

// judgement collects findings.
type check struct {
	facts            *Facts
	needs            *Needs
	addressed        []*Device // devices that have addresses
	containerDevices []*Device // behind which containers are
	found            []Finding
	accepts          []AcceptRule

	steps, maxSteps int // of walks through chains; most 0: without bound
}

// judge begins to judge a host.
func newCheck(f *Facts, n *Needs) *check {
	j := &check{facts: f, needs: n}
	for i := range f.Devices {
		if len(f.Devices[i].Prefixes) > 0 {
			j.addressed = append(j.addressed, &f.Devices[i])
		}
	}
	j.containerDevices = j.findContainerDevices()
	return j
}

func (j *check) addFinding(f Finding) {
	if len(j.found) < MaxFindings && !slices.Contains(j.found, f) {
		if f.Document == "" {
			f.Document = sectionHost
		}
		j.found = append(j.found, f)
	}
}

// device returns the device behind which an address is a neighbour; nil: none.
func (j *check) deviceToward(a netip.Addr) *Device {
	var best *Device
	bits := -1
	for _, d := range j.addressed {
		for _, p := range d.Prefixes {
			if p.Bits() > bits && p.Bits() < a.BitLen() && p.Contains(a) {
				best, bits = d, p.Bits()
			}
		}
	}
	return best
}

// uplink returns the device over which other hosts are reached; nil: not known.
func (j *check) uplink() *Device {
	for _, d := range j.addressed {
		if slices.Contains(j.facts.RouteDevices, d.Name) && !slices.Contains(j.containerDevices, d) {
			return d
		}
	}
	if d := j.deviceWith(j.needs.Gossip.Addr()); d != nil && !d.Loopback {
		return d
	}
	for _, d := range j.addressed {
		if !d.Loopback && !d.Bridge && d.Master == "" {
			return d
		}
	}
	return nil
}

// owner returns the device that has an address; nil: none.
func (j *check) deviceWith(a netip.Addr) *Device {
	for _, d := range j.addressed {
		if slices.ContainsFunc(d.Prefixes, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return d
		}
	}
	return nil
}

// findHosted returns the devices behind which containers are: of the tasks that
// are registered, or, while none is, every bridge.
func (j *check) findContainerDevices() (all []*Device) {
	for _, a := range j.needs.Tasks {
		if d := j.deviceToward(a); d != nil && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	if len(j.needs.Tasks) > 0 {
		return all
	}
	for _, d := range j.addressed {
		if d.Bridge {
			all = append(all, d)
		}
	}
	return all
}

// has6 reports whether IPv6 is needed.
func (j *check) needsIPv6() bool {
	return slices.ContainsFunc(j.needs.Pools, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// list joins words for people.
func joinWords(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}
