package state

import "testing"

// TestVerify: a stream that an interrupted writer left half changed is found,
// looks unequal, and is right again after its owner's next snapshot.
func TestVerify(t *testing.T) {
	a, b := pair(DefaultLimits())
	commit(t, a, opaque("k1", "1"), opaque("k2", "2"))
	pull(t, a, b, "a", 1<<20)
	commit(t, b, opaque("own", "1"))
	was, hash := keys(b, "a"), b.Hash()
	if n := b.Verify(); n != 0 || b.Hash() != hash {
		t.Fatalf("%d streams of a sound table differ, hash %x instead of %x", n, b.Hash(), hash)
	}
	delete(b.streams["a"].live, string([]byte{200})+"k1")
	b.fine[3]++
	if n := b.Verify(); n != 1 || b.Hash() == hash {
		t.Fatalf("%d streams differ; the table still looks equal: %v", n, b.Hash() == hash)
	}
	h, _ := a.Head("a")
	w, need := b.Want("a", h)
	if !need {
		t.Fatal("the broken stream is not asked for")
	}
	if r, err := b.Apply(a.Delta(w, 1<<20)); r != Applied || err != nil || keys(b, "a") != was || b.Hash() != hash {
		t.Fatalf("not healed: %v %v, %q instead of %q", r, err, keys(b, "a"), was)
	}
}
