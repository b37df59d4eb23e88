package sim

import (
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
