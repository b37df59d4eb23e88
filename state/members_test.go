package state

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestMembersFollowChanges: whatever comes, goes, changes its class or what it says,
// the members are the same as sorted anew, and each is found, by its place or by its id.
func TestMembersFollowChanges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		streams := []*stream{newStream("a"), newStream("b")}
		now := map[string]member{}
		view := &Service{}
		for version := range uint64(rapid.IntRange(1, 30).Draw(rt, "publications")) {
			var changes []change
			for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 300), 0, 60, rapid.ID[int]).Draw(rt, "endpoints") {
				s, id := streams[i%2], fmt.Sprint("t", i/2)
				name := string(s.owner) + id
				was, here := now[name]
				c := change{old: was.entry, was: was.class}
				if !here || rapid.IntRange(0, 2).Draw(rt, "kind") > 0 {
					c.now = Class(rapid.IntRange(0, int(Unready)).Draw(rt, "class"))
					c.cur, _ = newEntry(s, Record{Kind: KindEndpoint, Key: id, Group: "web", Version: version + 1})
					now[name] = member{c.now, c.cur}
				} else {
					delete(now, name)
				}
				changes = append(changes, c)
			}
			n := &Service{}
			n.takeMembers(view, changes)
			var want []member
			for _, m := range now {
				want = append(want, m)
			}
			slices.SortFunc(want, compareMember)
			if len(want) != len(n.Members) {
				rt.Fatalf("%d members, not %d", len(n.Members), len(want))
			}
			for i, m := range want {
				if n.Members[i] != m.entry || n.Class(i) != m.class || n.find(m) != i || n.search(m) != i {
					rt.Fatalf("member %d is %v, class %v, found at %d and %d", i, n.Members[i].Key(), n.Class(i), n.find(m),
						n.search(m))
				}
			}
			view = n
		}
	})
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
