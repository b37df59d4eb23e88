package gossip

import (
	"testing"
	"time"

	"meshd/state"
)

// quiet lets two cores go on for a while and returns how many bytes of heads and
// deltas they sent meanwhile.
func quiet(a, b *Core, from, to time.Duration) (bytes uint64) {
	count := func() (n uint64) {
		for _, c := range []*Core{a, b} {
			n += c.Stats.Out[frameHeads] + c.Stats.Out[frameSummary] + c.Stats.Out[frameDelta] + c.Stats.Out[frameWants]
		}
		return n
	}
	was := count()
	pass(a, b, from, to, func(time.Duration) {})
	return count() - was
}

// TestThePutAwayIsNoDifference: G4, S9. Two nodes of which one has put the stream
// of a dead owner away half an hour before the other do not compare it at every
// probe; what is new is noticed as ever.
func TestThePutAwayIsNoDifference(t *testing.T) {
	for name, away := range map[string]func(*state.Table){
		"not offered": func(t *state.Table) { t.SetOffered("ghost", false) },
		"buried":      func(t *state.Table) { t.Retire("ghost") },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := testCore(t, "a", "b"), testCore(t, "b", "a")
			exchange(a, b)
			x, err := ownerDelta("ghost")
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []*Core{a, b} {
				if r, err := c.store.Apply(x); r != state.Applied {
					t.Fatal(r, err)
				}
			}
			away(a.store.Global())
			if a.store.Global().Hash() == b.store.Global().Hash() {
				t.Fatal("it makes no difference")
			}
			quiet(a, b, 10*time.Second, 20*time.Second)
			if n := quiet(a, b, 20*time.Second, 40*time.Second); n > 0 {
				t.Errorf("%d bytes at rest about what is put away", n)
			}
			for _, c := range []*Core{a, b} {
				if d := c.Divergence(""); d != 0 {
					t.Errorf("%s says that its table differs since %v", c.cfg.Self, d)
				}
			}
			if _, err := b.store.Global().Commit([]state.Change{{Kind: 99, Key: "k", Body: "v"}}); err != nil {
				t.Fatal(err) // nobody is told
			}
			quiet(a, b, 40*time.Second, 50*time.Second)
			if ha, _ := a.store.Global().Head("b"); ha.Version == 0 {
				t.Fatal("no stream of b")
			} else if hb, _ := b.store.Global().Head("b"); ha != hb {
				t.Errorf("what b says is %+v, and %+v on a", hb, ha)
			}
		})
	}
}

// TestLivingOwnersAreNeverAgreedOn: G4. A difference in the stream of an owner
// that lives is compared until it is gone.
func TestLivingOwnersAreNeverAgreedOn(t *testing.T) {
	a, b := testCore(t, "a", "b", "c"), testCore(t, "b", "a", "c")
	exchange(a, b)
	x, err := ownerDelta("c")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := a.store.Apply(x); r != state.Applied {
		t.Fatal(r, err)
	}
	a.store.Global().SetOffered("c", false)
	n := a.nets.byName[""]
	f := headsFrame{n: 1, buckets: []int{0}, heads: b.store.Global().Heads(func(state.NodeID) bool { return true })}
	a.repair.rememberAgreement("b", n, f, n.table.Heads(func(state.NodeID) bool { return true }))
	if n.agreements != [maxAgreements]agreement{} {
		t.Errorf("%v", n.agreements)
	}
}
