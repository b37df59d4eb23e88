package hostcheck

import (
	"net/netip"
	"slices"
)

// Network is one in which this host takes part.
type Network struct {
	Pools []netip.Prefix
	Tasks []netip.Addr // of this host
}

// place is a task, and the device of this host behind which it is.
type placedTask struct {
	task   netip.Addr
	subnet netip.Prefix
	device *Device
}

// between returns packets of tasks to those of the same network behind another
// device of this host, through a VIP and without, and the answers. Docker drops
// them: it keeps its networks apart. So that their number grows with that of
// devices only, each is asked about together with the next one, in both directions.
func (j *check) packetsBetweenDevices() (all []neededPacket) {
	for i := range j.needs.Networks {
		n := &j.needs.Networks[i]
		for _, is6 := range []bool{false, true} {
			places := j.tasksByDevice(n, is6)
			if len(places) < 2 {
				continue
			}
			for at, a := range places {
				b := places[(at+1)%len(places)]
				all = append(all, j.packetsBetween(n, a, b)...)
				all = append(all, j.packetsBetween(n, b, a)...)
			}
		}
	}
	return all
}

// places returns a task of the network, of one family, behind each device that has any.
func (j *check) tasksByDevice(n *Network, is6 bool) (all []placedTask) {
	for _, a := range n.Tasks {
		d := j.deviceToward(a)
		if a.Is6() != is6 || d == nil || slices.ContainsFunc(all, func(p placedTask) bool { return p.device == d }) {
			continue
		}
		for _, p := range d.Prefixes {
			if p.Contains(a) && !p.IsSingleIP() {
				all = append(all, placedTask{a, p.Masked(), d})
				break
			}
		}
	}
	return all
}

// pair returns the packets from one task to another, and back.
func (j *check) packetsBetween(n *Network, from, to placedTask) (all []neededPacket) {
	const what = "connections of containers to those behind another device of this host"
	add := func(what string, orig netip.Prefix, odst netip.Addr, status uint32) {
		all = append(all, j.withReply(neededPacket{purpose: what, destination: orig, packet: packet{
			in: from.device.Name, out: to.device.Name, src: from.task, dst: to.task, osrc: from.task, odst: odst,
			state: StateNew, status: status, proto: tcp, targetPort: j.anyPort(),
		}})...)
	}
	for _, pool := range n.Pools {
		if pool.Addr().Is4() == to.task.Is4() && slices.Contains(j.needs.Pools, pool) {
			add(vipConnections, pool, pool.Addr().Next(), StatusDNAT)
		}
	}
	add(what, to.subnet, to.task, 0)
	return all
}
