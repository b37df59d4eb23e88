package sim

import (
	"syscall"
	"time"

	"meshd/gossip"
)

// spent is what a machine, or all, used up: of machines in all their lives.
type spent struct {
	bytes   uint64        // sent, memberlist's own included
	packets uint64        // datagrams sent, likewise; of the whole mesh only
	joins   uint64        // exchanges of the whole membership that joiners asked for
	checks  uint64        // reported deaths that were checked
	cpu     time.Duration // of the process, the simulator's own included; of the whole mesh only
}

// add adds what one life of a host used.
func (s *spent) add(c *gossip.Core, h *gossip.Host) {
	st := h.Stats()
	s.bytes += st.Out
	s.joins += st.Joins + st.JoinsFailed
	s.checks += c.Stats.Verified
}

// spent returns what all machines used until now.
func (m *Mesh) spent() spent {
	m.Net.mu.Lock()
	sum := spent{packets: m.Net.Sent, cpu: processTime()}
	m.Net.mu.Unlock()
	for _, c := range m.all {
		sum.bytes, sum.joins, sum.checks = sum.bytes+c.past.bytes, sum.joins+c.past.joins, sum.checks+c.past.checks
		if c.up {
			sum.add(c.Core, c.Host)
		}
	}
	return sum
}

// processTime returns the processor time that this process has used.
func processTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
