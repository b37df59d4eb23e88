package state

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestMembersFollowChanges: whatever comes, goes, changes its class or what it says,
// the members are the same as sorted anew, and each is found, by its place or by its id;
// and what was published does not change.
func TestMembersFollowChanges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &memberWorld{streams: []*stream{newStream("a"), newStream("b")}, now: map[string]member{}}
		view := &Service{}
		type published struct {
			list Members
			was  []*Entry
		}
		var all []published
		for range rapid.IntRange(1, 30).Draw(rt, "publications") {
			n := &Service{}
			n.takeMembers(view, w.change(rt))
			want := w.sorted()
			if len(want) != n.Members.Len() {
				rt.Fatalf("%d members, not %d", n.Members.Len(), len(want))
			}
			for i, m := range want {
				if n.Members.At(i) != m.entry || n.Class(i) != m.class || n.find(m) != i || n.search(m) != i {
					rt.Fatalf("member %d is %v, class %v, found at %d and %d", i, n.Members.At(i).Key(), n.Class(i), n.find(m),
						n.search(m))
				}
			}
			view, all = n, append(all, published{n.Members, n.Members.AppendTo(nil)})
		}
		for i, p := range all {
			if !slices.Equal(p.list.AppendTo(nil), p.was) {
				rt.Fatalf("publication %d of %d has changed", i, len(all))
			}
		}
	})
}

// memberWorld is the endpoints of a service, as a map.
type memberWorld struct {
	streams []*stream
	now     map[string]member
	version uint64
}

// change changes some of them: a few, or many that follow each other.
func (w *memberWorld) change(rt *rapid.T) (changes []change) {
	most := rapid.SampledFrom([]int{1, 8, 60, 3 * fewMembers}).Draw(rt, "most")
	from, step := rapid.IntRange(0, 3*fewMembers).Draw(rt, "from"), rapid.IntRange(1, 9).Draw(rt, "step")
	kinds := rapid.SampledFrom([]string{"update", "update", "add", "delete", "class", "any"}).Draw(rt, "kind")
	seed := rapid.Uint64().Draw(rt, "seed")
	rng := rand.New(rand.NewPCG(seed, 0))
	w.version++
	for i := range rapid.IntRange(0, most).Draw(rt, "changes") {
		i := from + step*i
		if i > 4*fewMembers {
			break
		}
		kind := kinds
		if kind == "any" {
			kind = []string{"update", "add", "delete", "class"}[rng.IntN(4)]
		}
		if c, ok := w.changeOne(i, kind, rng); ok {
			changes = append(changes, c)
		}
	}
	rng.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
	return changes
}

func (w *memberWorld) changeOne(i int, kind string, rng *rand.Rand) (c change, ok bool) {
	s, id := w.streams[i%2], fmt.Sprint("t", i/2)
	name := string(s.owner) + id
	was, here := w.now[name]
	if here == (kind == "add") {
		return c, false
	}
	c = change{old: was.entry, was: was.class}
	if kind == "delete" {
		delete(w.now, name)
		return c, true
	}
	c.now = was.class
	if kind != "update" {
		c.now = Class(rng.IntN(int(Hidden)))
	}
	c.cur, _ = newEntry(s, Record{Kind: KindEndpoint, Key: id, Group: "web", Version: w.version})
	w.now[name] = member{c.now, c.cur}
	return c, true
}

func (w *memberWorld) sorted() (ms []member) {
	for _, m := range w.now {
		ms = append(ms, m)
	}
	slices.SortFunc(ms, compareMember)
	return ms
}

// A place names the same member as long as none comes or goes, however many there are.
func TestPlace(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 1<<26).Draw(rt, "members")
		i := rapid.IntRange(0, n-1).Draw(rt, "index")
		if got := placeOf(i, n).in(n); got != i {
			rt.Fatalf("%d of %d is found at %d", i, n, got)
		}
	})
}
