package resolver

// This file owns the counters of the fast path: those of one batch, so that the
// counters that all goroutines share are touched once per batch.

import "math/bits"

// fastCounts counts the fast path's answers of one batch, by the place of their
// type in packedTypes.
type fastCounts struct {
	positive, negative [32]uint32
	// used has a bit for each type that was counted since the last flush.
	used uint32
}

// add counts one answer.
func (c *fastCounts) add(kind uint8, negative bool) {
	c.used |= 1 << kind
	if negative {
		c.negative[kind]++
		return
	}
	c.positive[kind]++
}

// flush adds the counts to the metrics and starts anew.
func (c *fastCounts) flush(m *metrics) {
	for ; c.used != 0; c.used &= c.used - 1 {
		kind := bits.TrailingZeros32(c.used)
		cells := &m.queries[0][min(kind, len(servedTypes))]
		cells[outcomeLocal].addUntimed(uint64(c.positive[kind]))
		cells[outcomeNegative].addUntimed(uint64(c.negative[kind]))
		c.positive[kind], c.negative[kind] = 0, 0
	}
}
