package gossip

// Stats counts what a core did since its start. Only the goroutine that runs
// the core may read it.
type Stats struct {
	BytesIn, BytesOut        uint64 // payload bytes, without memberlist's framing
	DatagramsOut, StreamsOut uint64
	Pushes, PushDropped      uint64 // push packets sent, and left to repair for lack of budget
	DeltasIn, DeltasOut      uint64
	Applied, Duplicates      uint64 // deltas that moved a stream, and old news
	Gaps, Wants              uint64
	PullTimeouts             uint64
	Probes, Mismatches       uint64
	HotSent                  uint64
	Malformed, Refused       uint64
	UnknownFrames            uint64
	Verified, FalseAlarms    uint64 // reported deaths checked, and found alive
	Reincarnations           uint64
}

// Queued returns how many deltas wait to be pushed and how many pulls are
// under way: both are zero in a mesh at rest (G7).
func (c *Core) Queued() (pushes, pulls int) { return len(c.push.items), len(c.pulls) }
