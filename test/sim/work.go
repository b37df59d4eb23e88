package sim

import (
	"fmt"
	"net/netip"

	"meshd/state"
)

// Endpoint returns the change that states a task of a service on a node.
// Serial tells successive statements of one task apart.
func Endpoint(id, service string, serial int) state.Change {
	h := serial
	for _, c := range id {
		h = h*31 + int(c)
	}
	e := state.Endpoint{
		ID: id, Service: service, Slot: uint32(serial%1000 + 1), Weight: uint16(serial%65535 + 1),
		IP4:   netip.AddrFrom4([4]byte{172, byte(16 + h>>16&15), byte(h >> 8), byte(h)}),
		Ports: []state.Port{{Name: "http", Number: 80, Proto: state.TCP}},
	}
	e.Normalize()
	return state.Change{Kind: state.KindEndpoint, Key: e.ID, Group: e.Service, Body: string(state.AppendEndpoint(nil, &e))}
}

// Remove returns the change that withdraws a task.
func Remove(id string) state.Change {
	return state.Change{Kind: state.KindEndpoint, Key: id, Delete: true}
}

// TaskID names the k-th task of a node.
func TaskID(n *Node, k int) string { return fmt.Sprintf("%s-t%d", n.ID, k) }

// Equal reports whether all running nodes hold the same table of the default
// network, and the same global scope.
func (w *World) Equal() bool {
	return w.EqualAmong(func(n *Node) bool { return n.up })
}

// EqualAmong reports whether the nodes for which in returns true hold the same tables.
func (w *World) EqualAmong(in func(n *Node) bool) bool {
	var first *Node
	for _, n := range w.nodes {
		if !n.up || !in(n) {
			continue
		}
		if first == nil {
			first = n
			continue
		}
		for _, name := range []string{w.opt.Network, ""} {
			if n.Table(name).Checksum() != first.Table(name).Checksum() {
				return false
			}
		}
	}
	return true
}
