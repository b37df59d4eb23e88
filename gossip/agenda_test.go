package gossip

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

type errand struct {
	at    time.Duration
	place int
}

func (e *errand) dueAt() time.Duration { return e.at }
func (e *errand) slot() *int           { return &e.place }

// TestAgenda: whatever is put, moved and removed, the first comes first and what is
// due is all that is.
func TestAgenda(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var a agenda[*errand]
	in := map[*errand]bool{}
	all := make([]*errand, 40)
	for i := range all {
		all[i] = &errand{}
	}
	for range 5000 {
		e := all[rng.IntN(len(all))]
		if rng.IntN(3) == 0 {
			a.remove(e)
			delete(in, e)
		} else {
			e.at = time.Duration(rng.IntN(50))
			a.put(e)
			in[e] = true
		}
		now, next, due := time.Duration(rng.IntN(50)), never, 0
		for e := range in {
			next = min(next, e.at)
			if e.at <= now {
				due++
			}
		}
		got := a.due(now)
		if a.len() != len(in) || a.next() != next || len(got) != due ||
			slices.ContainsFunc(got, func(e *errand) bool { return !in[e] || e.at > now }) {
			t.Fatalf("%d wait, next at %v, %d are due; should be %d, %v, %d", a.len(), a.next(), len(got), len(in), next, due)
		}
	}
}
