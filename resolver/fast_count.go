package resolver

// fastCounts counts the fast path's answers of one batch, so that the shared
// counters are touched once per batch and not once per question.
type fastCounts struct {
	n     [len(typeLabels)][2]uint32 // [1]: negative
	dirty bool
}

func (c *fastCounts) add(qtype uint16, negative bool) {
	i := 0
	if negative {
		i = 1
	}
	c.n[typeIndex(qtype)][i]++
	c.dirty = true
}

// flush adds the counts to the metrics.
func (c *fastCounts) flush(m *metrics) {
	if !c.dirty {
		return
	}
	for t := range c.n {
		for i, o := range [...]Outcome{OutcomeLocal, OutcomeNegative} {
			if n := uint64(c.n[t][i]); n > 0 {
				cell := &m.queries[0][t][o]
				cell.count.Add(n)
				cell.buckets[0].Add(n)
			}
		}
	}
	*c = fastCounts{}
}
