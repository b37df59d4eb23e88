//go:build linux

package hostile

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"meshd/test/rig"
)

// neighbourCases are hosts that are on the subnet for those who believe it.
func neighbourCases() []attack {
	return []attack{{name: "members-at-free-addresses", do: freeAddresses}}
}

// freeAddresses makes members at free addresses of the subnet. The kernel keeps
// what goes there until ARP gives up, in the buffer of all that a daemon sends.
// Meanwhile each daemon's core answers.
func freeAddresses(m *mesh) error {
	until := time.Now().Add(20 * time.Second)
	slowest := time.Duration(0)
	for round := uint32(1); time.Now().Before(until); round++ {
		for i := range 180 {
			for _, n := range m.nodes {
				addr := netip.AddrFrom4([4]byte{172, 20, 0, byte(60 + i)})
				if err := m.peer.message(n, member(aliveMessage, fmt.Sprintf("free-%d-%d", round%4, i), round, addr)); err != nil {
					return err
				}
			}
			if i%16 == 15 {
				m.peer.pause(2 * time.Millisecond)
			}
		}
		for _, n := range m.nodes {
			asked := time.Now()
			if _, err := n.API.Status(m.ctx); err != nil {
				return fmt.Errorf("%s: %w", n.Host.Name, err)
			}
			slowest = max(slowest, time.Since(asked))
		}
		m.peer.pause(500 * time.Millisecond)
	}
	if slowest > rig.Patience(3*time.Second) {
		return fmt.Errorf("a core took %v to answer", slowest)
	}
	return errors.Join(m.alive(), m.members())
}
