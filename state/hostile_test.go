package state

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestHostileDeltas: nothing that a peer sends makes a table panic, changes the
// own stream or moves a head back (G8, S1, S2).
func TestHostileDeltas(t *testing.T) {
	counter := rapid.OneOf(rapid.Uint64Range(0, 6),
		rapid.SampledFrom([]uint64{maxCounter, maxCounter + 1, 1 << 63, 1<<64 - 1}))
	record := rapid.Custom(func(rt *rapid.T) Record {
		return Record{
			Kind:  Kind(rapid.SampledFrom([]byte{0, 1, 1, 2, 3, 17, 200}).Draw(rt, "kind")),
			Key:   rapid.SampledFrom([]string{"", "t1", "t2", "web", strings.Repeat("k", 300)}).Draw(rt, "key"),
			Group: rapid.SampledFrom([]string{"", "web", "tasks"}).Draw(rt, "group"), Version: counter.Draw(rt, "version"),
			Deleted: rapid.Bool().Draw(rt, "deleted"),
			Body: rapid.SampledFrom([]string{
				"", "\x01", "\x01\x04\x0a\x00\x00\x01", "\x01\x04\x0a\x00\x00\x01\x04\x01\x00",
				strings.Repeat("x", MaxBody+1),
			}).Draw(rt, "body"),
		}
	})
	delta := rapid.Custom(func(rt *rapid.T) *Delta {
		return &Delta{
			Network: "net", Owner: rapid.SampledFrom([]NodeID{"a", "b", "x", ""}).Draw(rt, "owner"),
			Inc: counter.Draw(rt, "inc"), From: counter.Draw(rt, "from"), To: counter.Draw(rt, "to"),
			Floor: counter.Draw(rt, "floor"),
			Sum:   rapid.Uint64Range(0, 3).Draw(rt, "sum"), Snapshot: rapid.Bool().Draw(rt, "snapshot"),
			After: counter.Draw(rt, "after"), Upto: counter.Draw(rt, "upto"),
			Records: rapid.SliceOfN(record, 0, 4).Draw(rt, "records"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		a, b := pair(Limits{Entries: 5, Bytes: 5000, Owners: 3, Tombstones: 2})
		commit(t, b, endpoint(t, "t9", "web", "10.0.0.9"))
		own := content(b.own())
		var now Head
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				h, _ := b.Head("a")
				if h.Compare(now) < 0 || content(b.own()) != own {
					rt.Fatalf("S1, S2: %+v after %+v", h, now)
				}
				now = h
				use := usage{}
				for _, st := range b.streams {
					use.add(st.counted, 1)
					if st.head.Inc == 0 && st.stage == nil {
						rt.Fatalf("S19: an empty stream of %q", st.owner)
					}
				}
				if use != b.use {
					rt.Fatalf("S19: %+v counted, %+v held", b.use, use)
				}
			},
			"delta": func(rt *rapid.T) {
				d := delta.Draw(rt, "delta")
				_, _ = b.Apply(d)
				h := Head{Inc: counter.Draw(rt, "h.inc"), Version: counter.Draw(rt, "h.version")}
				b.Want(d.Owner, h)
				b.SelfAhead(h)
				w := Want{Owner: d.Owner, Inc: d.Inc, From: d.From, After: d.After, Snapshot: d.Snapshot}
				b.Delta(w, int(d.To))
				b.Delta(Want{Owner: "b", Inc: 1, From: d.From, After: d.After, Snapshot: d.Snapshot}, 10)
				b.Publish(1)
			},
			"honest": func(rt *rapid.T) {
				commit(t, a, opaque("k", fmt.Sprint(now.Version)))
				h, _ := a.Head("a")
				if w, need := b.Want("a", h); need {
					if d := a.Delta(w, 1); d != nil {
						_, _ = b.Apply(d)
					}
				}
			},
		})
	})
}
