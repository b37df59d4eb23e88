package hostcheck

import (
	"net/netip"
	"slices"
)

// Network is a network in which this host takes part.
type Network struct {
	Pools []netip.Prefix
	Tasks []netip.Addr // of this host
}

// placedTask is a task with the device of this host behind which it is.
type placedTask struct {
	task   netip.Addr
	subnet netip.Prefix
	device *Device
}

// packetsBetweenDevices returns packets of tasks to those of the same network behind
// another device of this host, with and without a VIP, and the answers. Docker drops
// them to keep its networks apart. Each device is paired with the next one only, in
// both directions, so that the number of packets grows with that of devices.
func (h *check) packetsBetweenDevices() (all []neededPacket) {
	for i := range h.needs.Networks {
		n := &h.needs.Networks[i]
		for _, is6 := range []bool{false, true} {
			places := h.tasksByDevice(n, is6)
			if len(places) < 2 {
				continue
			}
			for at, a := range places {
				b := places[(at+1)%len(places)]
				all = append(all, h.packetsBetween(n, a, b)...)
				all = append(all, h.packetsBetween(n, b, a)...)
			}
		}
	}
	return all
}

// tasksByDevice returns, for one family, one task of the network behind each device
// that has any.
func (h *check) tasksByDevice(n *Network, is6 bool) (all []placedTask) {
	for _, a := range n.Tasks {
		d := h.deviceToward(a)
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

// packetsBetween returns the packets from one task to another, and the answers.
func (h *check) packetsBetween(n *Network, from, to placedTask) (all []neededPacket) {
	const what = "connections of containers to those behind another device of this host"
	add := func(what string, orig netip.Prefix, odst netip.Addr, status uint32) {
		all = append(all, h.withReply(neededPacket{purpose: what, destination: orig, packet: packet{
			in: from.device.Name, out: to.device.Name, src: from.task, dst: to.task, osrc: from.task, odst: odst,
			state: StateNew, status: status, proto: tcp, targetPort: h.anyTarget(),
		}})...)
	}
	for _, pool := range n.Pools {
		if pool.Addr().Is4() == to.task.Is4() && slices.Contains(h.needs.Pools, pool) {
			add(vipConnections, pool, pool.Addr().Next(), StatusDNAT)
		}
	}
	add(what, to.subnet, to.task, 0)
	return all
}
