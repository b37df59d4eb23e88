package gossip

import (
	"net/netip"
	"time"
)

// This file owns at how many hosts there are members that count when most vanish at
// once (S12).

// hostCount counts hosts, since names cost nothing, and many at one address that go
// together say nothing about this node's links. Members that have shown that they exist
// count, and those that vanished within the window.
//
// Invariant: at[host] is how many members have that host in their hostStanding.
type hostCount struct {
	window time.Duration // CoreConfig.PreserveWindow
	at     map[netip.AddrPort]int
	dead   []fading // those that vanished, oldest first
}

// fading is a member that was found dead at a time.
type fading struct {
	m  *member
	at time.Duration
}

// hostStanding is what hostCount keeps of a member.
type hostStanding struct {
	counted netip.AddrPort // the host at which it counts; invalid: it does not
	fading  time.Duration  // the time of its last line in hostCount.dead
}

func newHostCount(window time.Duration) hostCount {
	return hostCount{window: window, at: map[netip.AddrPort]int{}}
}

// update counts a member that has changed.
func (h *hostCount) update(m *member, now time.Duration) {
	var host netip.AddrPort
	vanished := m.phase == phaseDead
	if m.proven && m.phase != phaseLeft && !m.gone && (!vanished || now-m.since <= h.window) {
		host = m.hostAddr()
	}
	if vanished && host.IsValid() && m.host.fading != m.since {
		m.host.fading = m.since
		h.forgetOld(now)
		h.dead = append(h.dead, fading{m, m.since})
	}
	h.count(m, host)
}

// count makes a member count at a host, and no other.
func (h *hostCount) count(m *member, host netip.AddrPort) {
	if was := m.host.counted; was != host {
		m.host.counted = host
		countAt(h.at, was, -1)
		countAt(h.at, host, 1)
	}
}

// forgetOld counts those out that vanished longer ago than the window.
func (h *hostCount) forgetOld(now time.Duration) {
	for len(h.dead) > 0 && now-h.dead[0].at > h.window {
		if f := h.dead[0]; f.m.phase == phaseDead && f.m.since == f.at {
			h.count(f.m, netip.AddrPort{})
		}
		h.dead = h.dead[1:]
	}
}

// len is how many hosts there are.
func (h *hostCount) len(now time.Duration) int {
	h.forgetOld(now)
	return len(h.at)
}
