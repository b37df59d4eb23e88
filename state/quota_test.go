package state

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestQuotas covers S13 at the owner and at receivers.
func TestQuotas(t *testing.T) {
	limits := Limits{Entries: 10, Bytes: 1000, Owners: 2, Tombstones: 4}
	a, b := pair(limits)
	fill := func(body string) (cs []Change) {
		for i := range limits.Entries {
			cs = append(cs, opaque(fmt.Sprint("k", i), body))
		}
		return cs
	}
	commit(t, a, fill("1")...)
	h, _ := a.Head("a")
	if _, err := a.Commit([]Change{opaque("k0", "2"), opaque("more", "1")}); !errors.Is(err, ErrQuota) {
		t.Fatalf("S13: %v", err)
	}
	if _, err := a.Commit([]Change{opaque("k1", strings.Repeat("x", 900))}); !errors.Is(err, ErrQuota) {
		t.Fatalf("S13: bytes: %v", err)
	}
	if now, _ := a.Head("a"); now != h {
		t.Fatal("S13: a refused commit wrote something")
	}
	pull(t, a, b, "a", 1<<20)
	commit(t, a, fill("2")...) // at its quota an owner can still update all it has
	if n := pull(t, a, b, "a", 1<<20); n != 1 || keys(a, "a") != keys(b, "a") {
		t.Fatalf("S13: %d deltas, %q", n, keys(b, "a"))
	}
	a.limits.Entries = 5 // a smaller limit after a restart must not stop deletes
	commit(t, a, remove("k1"))

	huge := &Delta{Network: "net", Owner: "x", Inc: 1, To: 100, Upto: 100, Snapshot: true}
	for v := range 60 {
		huge.Records = append(huge.Records, Record{Kind: 200, Key: fmt.Sprint(v), Version: uint64(v + 1)})
	}
	if r, err := b.Apply(huge); r != Refused || !errors.Is(err, ErrQuota) || b.streams["x"] != nil {
		t.Fatalf("S13: %v %v", r, err)
	}
	huge.Records = nil
	if r, err := b.Apply(huge); r != Applied {
		t.Fatal(r, err)
	}
	huge.Owner = "y"
	if r, err := b.Apply(huge); r != Refused || !errors.Is(err, ErrQuota) {
		t.Fatalf("S13: owners: %v %v", r, err)
	}
}

// TestCommit covers what an owner may say.
func TestCommit(t *testing.T) {
	a, _ := pair(DefaultLimits())
	commit(t, a, opaque("k", "v"))
	h, _ := a.Head("a")
	for _, c := range [][]Change{
		nil,
		{opaque("k", "v")},
		{remove("other")},
		{opaque("k", "w"), opaque("k", "v")},
		{remove("k"), opaque("k", "v")},
	} {
		if changed, err := a.Commit(c); changed || err != nil {
			t.Errorf("%v: %v %v", c, changed, err)
		}
	}
	for name, c := range map[string]Change{
		"no kind":   {Key: "k"},
		"long key":  opaque(strings.Repeat("k", MaxName+1), ""),
		"long body": opaque("k", strings.Repeat("b", MaxBody+1)),
		"poison":    {Kind: KindEndpoint, Key: "t1", Group: "web", Body: "\x01"},
		"bad id":    {Kind: KindEndpoint, Key: "T 1", Group: "web", Body: endpoint(t, "t1", "web", "10.0.0.1").Body},
	} {
		if _, err := a.Commit([]Change{opaque("good", "1"), c}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now, _ := a.Head("a"); now != h {
		t.Errorf("head %+v, want %+v", now, h)
	}
	commit(t, a, opaque("k", "w"), remove("k"))
	if keys(a, "a") != "" {
		t.Errorf("the last of several changes counts: %q", keys(a, "a"))
	}
}
