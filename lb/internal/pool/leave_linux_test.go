package pool

import (
	"strings"
	"testing"

	"meshd/lb"
)

// What IPVS left is gone, and where no IPVS was, nothing is written.
func TestLeaveRules(t *testing.T) {
	r := newRig(t)
	must(t, r.marked().SetPool(lb.Pool{Prefix: pool4, Src: node4})) // of IPVS
	d, err := New(r.config())                                       // the driver that is used
	must(t, err)
	t.Cleanup(func() { d.Close() })
	must(t, d.Setup())
	former, err := NewMarked(r.config())
	must(t, err)
	t.Cleanup(func() { former.Close() })
	must(t, former.RemoveMarking())
	if list := r.NftList(); list != "" && (!strings.Contains(list, "leave_output") ||
		strings.Contains(list, "mark_local") || strings.Contains(list, "reset_output")) {
		t.Errorf("while it leaves: %s", list)
	}
	must(t, former.RemoveMarks())
	want := r.NftList()
	for _, gone := range []string{"leave_", "reset_", "mark", "served"} {
		if strings.Contains(want, gone) {
			t.Errorf("%s is left in %s", gone, want)
		}
	}
	before, err := former.Number()
	must(t, err)
	must(t, former.RemoveMarking())
	must(t, former.RemoveMarks())
	if now, err := former.Number(); err != nil || now != before {
		t.Errorf("the second time something was written: %d, before %d, %v", now, before, err)
	}
	if found, err := d.Check(); err != nil || len(found) > 0 {
		t.Errorf("the driver that is used finds %v, %v", found, err)
	}
}
