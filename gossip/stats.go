package gossip

import "time"

// The counters of a core, and what of a core is measured from outside. Nothing in
// the protocol reads them.

// Stats counts what a core did since its start. Only the goroutine that runs the core
// may read it. A field of two names counts two things, in the order of the comment.
type Stats struct {
	// What came and went.

	BytesIn, BytesOut        uint64             // payload bytes, without memberlist's framing
	In, Out                  [frameKinds]uint64 // payload bytes by frame type (FrameName), without the heads of packets
	DatagramsOut, StreamsOut uint64             // packets sent, by how they were sent

	// How changes spread.

	Pushes, PushDropped uint64 // push packets sent, and those left to repair for lack of budget
	DeltasIn, DeltasOut uint64 // deltas that came, and those sent in answer to wants
	Applied, Duplicates uint64 // deltas that moved a stream, and those that brought nothing new
	Gaps, Wants         uint64 // deltas whose predecessor is missing, and streams asked for
	PullTimeouts        uint64 // wants without an answer in time
	Probes, Mismatches  uint64 // packets of table hashes sent, and peers' hashes that differed
	HotSent             uint64 // packets of recent news sent to peers

	// What peers sent and was not used.

	Malformed, Refused uint64 // packets and frames that do not parse, and those whose content was refused
	UnknownFrames      uint64 // frames of a type that this version does not know
	FramesDropped      uint64 // frames over the number per packet, or of a peer without budget (G13)
	AnswersDropped     uint64 // answers over a budget
	SendsDropped       uint64 // packets over what may wait for Drain
	EventsDropped      uint64 // calls, answers and remarks over what may wait for Drain
	AsksDropped        uint64 // requests to ping a node that is not known here, or was pinged enough
	Strangers          uint64 // packets of senders that neither the membership nor a table knows
	Oversized          uint64 // packets longer than anything this node sends

	// What became of members and of this node.

	Verified, FalseAlarms uint64 // reported deaths that were checked, and those that were wrong
	ChecksWaited          uint64 // of those checked, those that were left to others to ping
	ReportsPutOff         uint64 // reported deaths of members that had just refuted one
	LooksPutOff           uint64 // pings before a hiding, put off since many were due
	Refutations           uint64 // beacons written since others asked whether this node lives
	RefutationsDropped    uint64 // those left out since the mesh wrote many
	ReapsDropped          uint64 // new lives whose leftovers in other networks are not looked for
	FalseGoodbyes         uint64 // goodbyes that their owner denied
	GoodbyesDropped       uint64 // goodbyes whose owner was not asked, since too many were asked already
	Reincarnations        uint64 // incarnations started in this life
	Carries, CarriesLater uint64 // looks at the own claims of a network, and those put off since the last took long
}

// countOut counts a packet that leaves, by its frames.
func (s *Stats) countOut(packet []byte) {
	s.BytesOut += uint64(len(packet))
	_, rest, err := decodeHead(packet)
	for err == nil && len(rest) > 0 {
		var typ byte
		var p []byte
		if typ, p, rest, err = nextFrame(rest); err == nil {
			s.Out[typ%frameKinds] += uint64(len(p))
		}
	}
}

// FrameName names a frame type of Stats.In and Out; "" for one that is not in
// use.
func FrameName(typ int) string {
	names := [frameKinds]string{
		framePush: "push", frameDelta: "delta", frameProbe: "probe", frameProbe32: "probe32", frameEqual32: "equal32",
		frameSummary: "summary", frameHeads: "heads",
		frameHot: "hint", frameWants: "wants", framePing: "ping", frameAck: "ack", frameAsk: "ask", frameHeard: "heard",
		frameEqual: "equal", frameMore: "more", frameCall: "call", frameReply: "reply",
	}
	return names[typ]
}

// Queued returns how many deltas wait to be pushed and how many pulls are under
// way. Both are zero in a mesh at rest (G7).
func (c *Core) Queued() (pushes, pulls int) { return len(c.push.queue.items), len(c.pull.pulls) }

// Compared returns how long ago the hash of a network's table was last sent to a
// peer; the time since the core's start if it never was.
func (c *Core) Compared(name string) time.Duration {
	n := c.nets.byName[name]
	if n == nil {
		return 0
	}
	return c.now - n.probedAt
}

// Divergence returns how long ago a network's table last compared equal with a
// peer's, if the latest comparison found a difference; else 0.
func (c *Core) Divergence(name string) time.Duration {
	n := c.nets.byName[name]
	if n == nil || n.differedAt <= n.equalAt {
		return 0
	}
	return c.now - n.equalAt
}
