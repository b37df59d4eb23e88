package hostcheck

import (
	"fmt"
	"net/netip"
	"slices"
)

// hairpin looks at the ports of the bridges behind which tasks are.
func (j *check) checkHairpin() {
	for _, port := range j.missingHairpin() {
		j.addFinding(Finding{
			Code: Hairpin, Severity: Fault,
			What: fmt.Sprintf("port %s of a bridge is not in hairpin mode while br_netfilter is on: its container does "+
				"not reach itself through a VIP, and loses a second or more whenever it is picked for its own request", port),
			Command: shellCommand("bridge", "link", "set", "dev", port, "hairpin", "on"),
		})
	}
}

// missingHairpin returns the ports of tasks that are to be in hairpin mode and
// are not. A task may be behind a port that leads to other hosts, since it is one
// of them, or somebody there claims its address: such a port would send all
// broadcasts back to where they came from.
func (j *check) missingHairpin() (ports []string) {
	for _, a := range j.needs.Tasks {
		if on := a.Is4() && j.facts.BridgeFilter4 || a.Is6() && j.facts.BridgeFilter6; !on {
			continue
		}
		name := j.facts.Ports[j.facts.Neighbours[a]]
		at := slices.IndexFunc(j.facts.Devices, func(d Device) bool { return name != "" && d.Name == name })
		if at < 0 || slices.Contains(ports, name) {
			continue
		}
		if d := &j.facts.Devices[at]; d.Pair && d.Master != "" && !d.Hairpin {
			ports = append(ports, name)
		}
	}
	return ports
}

// MissingHairpin returns the ports of bridges, by name, that must be in hairpin
// mode for tasks of this host and are not.
func MissingHairpin(f *Facts, n *Needs) []string {
	j := newCheck(f, n)
	return j.missingHairpin()
}

// Unplaced returns the tasks of this host of which it is not known behind which
// port of a bridge they are, since nobody has talked to them for a while.
func UnknownPorts(f *Facts, n *Needs) (all []netip.Addr) {
	j := newCheck(f, n)
	for _, a := range n.Tasks {
		if on := a.Is4() && f.BridgeFilter4 || a.Is6() && f.BridgeFilter6; !on {
			continue
		}
		if d := j.deviceToward(a); d != nil && d.Bridge && j.deviceWith(a) == nil && f.Ports[f.Neighbours[a]] == "" {
			all = append(all, a)
		}
	}
	return all
}

// passes are the devices by which packets of containers come and go: those behind
// which they are, and those that lead to other hosts.
func (j *check) pathDevices() []*Device {
	all := slices.Clone(j.containerDevices)
	for _, d := range j.addressed {
		if slices.Contains(j.facts.RouteDevices, d.Name) && !d.Loopback && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	if up := j.uplink(); up != nil && !slices.Contains(all, up) {
		all = append(all, up)
	}
	return all
}

// protocol4or6 is a family of addresses with its settings of forwarding.
type familySettings struct {
	name, directory, key string
	hostForwards         Switch
	forwards             func(*Device) Switch
}

func (j *check) families() []familySettings {
	all := []familySettings{{
		"IPv4", "ipv4", "net.ipv4.ip_forward", j.facts.Forward4,
		func(d *Device) Switch { return d.Forward4 },
	}}
	if j.needsIPv6() {
		all = append(all, familySettings{
			"IPv6", "ipv6", "net.ipv6.conf.all.forwarding", j.facts.Forward6,
			func(d *Device) Switch {
				if j.facts.Forward6 == Off {
					return max(d.Force6, Off)
				}
				return max(d.Forward6, d.Force6)
			},
		})
	}
	return all
}

// forwarding looks at the settings that let packets pass the host.
func (j *check) checkForwarding() {
	if len(j.containerDevices) == 0 {
		return // no containers
	}
	for _, p := range j.families() {
		j.checkForwardingOf(&p)
	}
}

func (j *check) checkForwardingOf(p *familySettings) {
	var off []*Device
	passes := j.pathDevices()
	for _, d := range passes {
		if p.forwards(d) == Off {
			off = append(off, d)
		}
	}
	switch {
	case p.hostForwards == Off && j.needs.FixesHost && !j.needs.ForwardsByDevice: // meshd is about to switch it on
	case p.hostForwards == Off && len(off) == len(passes), p.hostForwards == Off && p.name == "IPv6" && len(off) > 0:
		j.addFinding(Finding{
			Code: ForwardingOff, Severity: Fault, Command: "sysctl -w " + p.key + "=1",
			What: fmt.Sprintf("the host does not forward %s packets: connections of its containers to VIPs, and of other "+
				"hosts to its containers, fail", p.name),
		})
	default:
		for _, d := range off {
			j.addFinding(Finding{
				Code: ForwardingOff, Severity: Fault, Command: shellCommand("sysctl", "-w",
					"net/"+p.directory+"/conf/"+d.Name+"/forwarding=1"),
				What: fmt.Sprintf("device %s does not forward %s packets, as others of the host do: what containers send or get "+
					"that way is dropped", d.Name, p.name),
			})
		}
	}
}

// MissingForwarding returns the settings, as paths below /proc/sys, with which the
// devices that containers need forward, and the host as a whole does not. Where the
// kernel has no such setting for IPv6, there is none.
func MissingForwarding(f *Facts, n *Needs) (keys []string) {
	j := newCheck(f, n)
	for _, d := range j.pathDevices() {
		if d.Forward4 == Off {
			keys = append(keys, "net/ipv4/conf/"+d.Name+"/forwarding")
		}
		if j.needsIPv6() && f.Forward6 == Off && d.Force6 == Off {
			keys = append(keys, "net/ipv6/conf/"+d.Name+"/force_forwarding")
		}
	}
	return keys
}

// ipv6 looks whether the host has the IPv6 that a pool needs.
func (j *check) checkIPv6() {
	if !j.needsIPv6() {
		return
	}
	for i := range j.facts.Devices {
		if d := &j.facts.Devices[i]; d.Loopback && d.NoIPv6 {
			j.addFinding(Finding{
				Code: IPv6Disabled, Severity: Fault,
				Command: "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 " +
					"net.ipv6.conf.lo.disable_ipv6=0",
				What: "IPv6 is switched off (net.ipv6.conf.lo.disable_ipv6=1), and a network has an IPv6 pool: its VIPs are " +
					"not served here",
			})
		}
	}
}

// reversePath looks for tasks whose subnet is on two devices: what arrives by
// the one that the host does not answer by is dropped by strict validation.
func (j *check) checkReversePath() {
	for _, a := range j.needs.Tasks {
		to := j.deviceToward(a)
		for _, d := range j.addressed {
			if to == nil || d == to || !d.Strict || !a.Is4() || !slices.ContainsFunc(d.Prefixes,
				func(p netip.Prefix) bool { return p.Contains(a) }) {
				continue
			}
			j.addFinding(Finding{
				Code: ReversePath, Severity: Fault, Command: shellCommand("sysctl", "-w", "net/ipv4/conf/all/rp_filter=2",
					"net/ipv4/conf/"+d.Name+"/rp_filter=2"),
				What: fmt.Sprintf("device %s validates sources strictly (rp_filter=1), and its subnet is on device %s too: "+
					"packets of task %s are dropped if they come by %s", d.Name, to.Name, a, d.Name),
			})
		}
	}
}

// conntrack looks how much room the table of connections has.
func (j *check) checkConntrack() {
	n, most := j.facts.Connections, j.facts.MaxConnections
	if most <= 0 || n < most/100*conntrackShare {
		return
	}
	j.addFinding(Finding{
		Code: ConntrackFull, Severity: Fault, Command: fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*most),
		What: fmt.Sprintf("the kernel's table of connections holds %d of at most %d: when it is full, new connections are "+
			"dropped, through VIPs or not", n, most),
	})
}

// services looks for others who balance addresses of our pools.
func (j *check) checkServices() {
	for _, pool := range j.needs.Pools {
		if j.needs.Driver == "nft" {
			for _, at := range j.facts.IPVS {
				if pool.Contains(at.Addr()) {
					j.addFinding(Finding{
						Code: ForeignIPVS, Severity: Fault, Command: fmt.Sprintf("ipvsadm -D -t %s || ipvsadm -D -u %s", at, at),
						What: fmt.Sprintf("IPVS balances %s, an address of pool %s, for somebody else: it takes connections that are "+
							"meshd's", at, pool),
					})
				}
			}
		}
		j.checkKubeProxy(pool)
	}
	for _, s := range j.needs.Schedulers {
		if there, known := j.facts.Schedulers[s]; known && !there && j.needs.Driver == "ipvs" {
			j.addFinding(Finding{
				Code: SchedulerModule, Severity: Fault, Command: "modprobe ip_vs_" + s,
				What: fmt.Sprintf("the kernel does not have the scheduler %s: services with it are not balanced", s),
			})
		}
	}
}

// addresses looks whether the addresses of the configuration are the host's.
func (j *check) checkAddresses() {
	if len(j.facts.Devices) == 0 {
		return
	}
	for _, at := range append([]netip.AddrPort{j.needs.Gossip}, j.needs.DNS...) {
		a := at.Addr()
		if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || j.deviceWith(a) != nil {
			continue
		}
		f := Finding{
			Code: NotOurAddress, Severity: Fault,
			What: fmt.Sprintf("%s is to be listened on, and is no address of this host", at),
		}
		if d := j.deviceToward(a); d != nil {
			f.Command = shellCommand("ip", "address", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", d.Name)
		}
		j.addFinding(f)
	}
	a := j.needs.Advertise
	if a.IsValid() && !a.IsLoopback() && j.deviceWith(a) == nil {
		j.addFinding(Finding{
			Code: NotOurAddress, Severity: Warning,
			What: fmt.Sprintf("other nodes are to dial %s, which is no address of this host: that is right only if something "+
				"in front of it translates (NAT)", a),
		})
	}
}
