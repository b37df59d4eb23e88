package hostcheck

import (
	"fmt"
	"net/netip"
	"slices"
)

// checkHairpin checks the ports of bridges behind which tasks are.
func (h *check) checkHairpin() {
	for _, port := range h.missingHairpin() {
		h.addFinding(Finding{
			Code: Hairpin, Severity: Fault,
			What: fmt.Sprintf("port %s of a bridge is not in hairpin mode while br_netfilter is on: its container does "+
				"not reach itself through a VIP, and loses a second or more whenever it is picked for its own request", port),
			Command: shellCommand("bridge", "link", "set", "dev", port, "hairpin", "on"),
		})
	}
}

// missingHairpin returns the ports of tasks that should be in hairpin mode and are
// not. Only ports with a container or virtual machine at the other end count: a port
// that leads to other hosts, one of which may have or claim the address of a task,
// would send all broadcasts back to where they came from.
func (h *check) missingHairpin() (ports []string) {
	for _, a := range h.needs.Tasks {
		if on := a.Is4() && h.facts.BridgeFilter4 || a.Is6() && h.facts.BridgeFilter6; !on {
			continue
		}
		name := h.facts.Ports[h.facts.Neighbours[a]]
		at := slices.IndexFunc(h.facts.Devices, func(d Device) bool { return name != "" && d.Name == name })
		if at < 0 || slices.Contains(ports, name) {
			continue
		}
		if d := &h.facts.Devices[at]; d.Pair && d.Master != "" && !d.Hairpin {
			ports = append(ports, name)
		}
	}
	return ports
}

// MissingHairpin returns the ports of bridges, by name, that must be in hairpin
// mode for tasks of this host and are not.
func MissingHairpin(f *Facts, n *Needs) []string {
	h := newCheck(f, n)
	return h.missingHairpin()
}

// UnknownPorts returns the tasks of this host whose port of a bridge is not known: the
// kernel forgets it when no packet has come from a task for a while.
func UnknownPorts(f *Facts, n *Needs) (all []netip.Addr) {
	h := newCheck(f, n)
	for _, a := range n.Tasks {
		if on := a.Is4() && f.BridgeFilter4 || a.Is6() && f.BridgeFilter6; !on {
			continue
		}
		if d := h.deviceToward(a); d != nil && d.Bridge && h.deviceWith(a) == nil && f.Ports[f.Neighbours[a]] == "" {
			all = append(all, a)
		}
	}
	return all
}

// pathDevices returns the devices that packets of containers pass: those behind which
// containers are, and those that lead to other hosts.
func (h *check) pathDevices() []*Device {
	all := slices.Clone(h.containerDevices)
	for _, d := range h.addressed {
		if slices.Contains(h.facts.RouteDevices, d.Name) && !d.Loopback && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	if up := h.uplink(); up != nil && !slices.Contains(all, up) {
		all = append(all, up)
	}
	return all
}

// familySettings are the settings of forwarding of IPv4 or IPv6.
type familySettings struct {
	name         string               // "IPv4" or "IPv6"
	directory    string               // below /proc/sys/net
	key          string               // the sysctl of the host as a whole
	hostForwards Switch               // its value
	forwards     func(*Device) Switch // whether a device forwards in effect
}

// families returns the settings of the families that this host needs.
func (h *check) families() []familySettings {
	all := []familySettings{{
		"IPv4", "ipv4", "net.ipv4.ip_forward", h.facts.Forward4,
		func(d *Device) Switch { return d.Forward4 },
	}}
	if h.needsIPv6() {
		all = append(all, familySettings{
			"IPv6", "ipv6", "net.ipv6.conf.all.forwarding", h.facts.Forward6,
			func(d *Device) Switch {
				if h.facts.Forward6 == Off {
					return max(d.Force6, Off)
				}
				return max(d.Forward6, d.Force6)
			},
		})
	}
	return all
}

// checkForwarding checks the settings that make the host forward packets.
func (h *check) checkForwarding() {
	if len(h.containerDevices) == 0 {
		return // no containers
	}
	for _, p := range h.families() {
		h.checkForwardingOf(&p)
	}
}

// checkForwardingOf checks one family.
func (h *check) checkForwardingOf(p *familySettings) {
	var off []*Device
	passes := h.pathDevices()
	for _, d := range passes {
		if p.forwards(d) == Off {
			off = append(off, d)
		}
	}
	switch {
	case p.hostForwards == Off && h.needs.FixesHost && !h.needs.ForwardsByDevice: // meshd is about to switch it on
	case p.hostForwards == Off && len(off) == len(passes), p.hostForwards == Off && p.name == "IPv6" && len(off) > 0:
		h.addFinding(Finding{
			Code: ForwardingOff, Severity: Fault, Command: "sysctl -w " + p.key + "=1",
			What: fmt.Sprintf("the host does not forward %s packets: connections of its containers to VIPs, and of other "+
				"hosts to its containers, fail", p.name),
		})
	default:
		for _, d := range off {
			h.addFinding(Finding{
				Code: ForwardingOff, Severity: Fault, Command: shellCommand("sysctl", "-w",
					"net/"+p.directory+"/conf/"+d.Name+"/forwarding=1"),
				What: fmt.Sprintf("device %s does not forward %s packets, as others of the host do: what containers send or get "+
					"that way is dropped", d.Name, p.name),
			})
		}
	}
}

// MissingForwarding returns the settings, as paths below /proc/sys, that make those
// devices forward that containers need, and not the host as a whole. A kernel without
// such a setting for IPv6 gets none.
func MissingForwarding(f *Facts, n *Needs) (keys []string) {
	h := newCheck(f, n)
	for _, d := range h.pathDevices() {
		if d.Forward4 == Off {
			keys = append(keys, "net/ipv4/conf/"+d.Name+"/forwarding")
		}
		if h.needsIPv6() && f.Forward6 == Off && d.Force6 == Off {
			keys = append(keys, "net/ipv6/conf/"+d.Name+"/force_forwarding")
		}
	}
	return keys
}

// checkIPv6 checks whether the host has the IPv6 that a pool needs.
func (h *check) checkIPv6() {
	if !h.needsIPv6() {
		return
	}
	for i := range h.facts.Devices {
		if d := &h.facts.Devices[i]; d.Loopback && d.NoIPv6 {
			h.addFinding(Finding{
				Code: IPv6Disabled, Severity: Fault,
				Command: "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 " +
					"net.ipv6.conf.lo.disable_ipv6=0",
				What: "IPv6 is switched off (net.ipv6.conf.lo.disable_ipv6=1), and a network has an IPv6 pool: its VIPs are " +
					"not served here",
			})
		}
	}
}

// checkReversePath looks for tasks whose subnet is on two devices. Strict validation
// drops what arrives by the device by which the host does not answer.
func (h *check) checkReversePath() {
	for _, a := range h.needs.Tasks {
		to := h.deviceToward(a)
		for _, d := range h.addressed {
			if to == nil || d == to || !d.Strict || !a.Is4() || !slices.ContainsFunc(d.Prefixes,
				func(p netip.Prefix) bool { return p.Contains(a) }) {
				continue
			}
			h.addFinding(Finding{
				Code: ReversePath, Severity: Fault, Command: shellCommand("sysctl", "-w", "net/ipv4/conf/all/rp_filter=2",
					"net/ipv4/conf/"+d.Name+"/rp_filter=2"),
				What: fmt.Sprintf("device %s validates sources strictly (rp_filter=1), and its subnet is on device %s too: "+
					"packets of task %s are dropped if they come by %s", d.Name, to.Name, a, d.Name),
			})
		}
	}
}

// checkConntrack checks whether the table of connections has room.
func (h *check) checkConntrack() {
	n, most := h.facts.Connections, h.facts.MaxConnections
	if most <= 0 || n < most/100*conntrackShare {
		return
	}
	h.addFinding(Finding{
		Code: ConntrackFull, Severity: Fault, Command: fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*most),
		What: fmt.Sprintf("the kernel's table of connections holds %d of at most %d: when it is full, new connections are "+
			"dropped, through VIPs or not", n, most),
	})
}

// checkServices looks for other programs that balance addresses of our pools, and for
// schedulers that the kernel lacks.
func (h *check) checkServices() {
	for _, pool := range h.needs.Pools {
		if h.needs.Driver == "nft" {
			for _, at := range h.facts.IPVS {
				if pool.Contains(at.Addr()) {
					h.addFinding(Finding{
						Code: ForeignIPVS, Severity: Fault, Command: fmt.Sprintf("ipvsadm -D -t %s || ipvsadm -D -u %s", at, at),
						What: fmt.Sprintf("IPVS balances %s, an address of pool %s, for somebody else: it takes connections that are "+
							"meshd's", at, pool),
					})
				}
			}
		}
		h.checkKubeProxy(pool)
	}
	for _, s := range h.needs.Schedulers {
		if there, known := h.facts.Schedulers[s]; known && !there && h.needs.Driver == "ipvs" {
			h.addFinding(Finding{
				Code: SchedulerModule, Severity: Fault, Command: "modprobe ip_vs_" + s,
				What: fmt.Sprintf("the kernel does not have the scheduler %s: services with it are not balanced", s),
			})
		}
	}
}

// checkAddresses checks whether the addresses of the configuration are the host's.
func (h *check) checkAddresses() {
	if len(h.facts.Devices) == 0 {
		return
	}
	for _, at := range append([]netip.AddrPort{h.needs.Gossip}, h.needs.DNS...) {
		a := at.Addr()
		if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || h.deviceWith(a) != nil {
			continue
		}
		f := Finding{
			Code: NotOurAddress, Severity: Fault,
			What: fmt.Sprintf("%s is to be listened on, and is no address of this host", at),
		}
		if d := h.deviceToward(a); d != nil {
			f.Command = shellCommand("ip", "address", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", d.Name)
		}
		h.addFinding(f)
	}
	a := h.needs.Advertise
	if a.IsValid() && !a.IsLoopback() && h.deviceWith(a) == nil {
		h.addFinding(Finding{
			Code: NotOurAddress, Severity: Warning,
			What: fmt.Sprintf("other nodes are to dial %s, which is no address of this host: that is right only if something "+
				"in front of it translates (NAT)", a),
		})
	}
}
