package lookout

import (
	"testing"
	"time"

	"meshd/lb/hostcheck"
)

// What of a host is found and mended each second is told a few times a minute, as it
// is then, and at last as it stays.
func TestHostTellerIsPaced(t *testing.T) {
	teller := reporter{byCode: map[hostcheck.Code]*codeReports{}}
	found := []hostcheck.Finding{{Code: hostcheck.FirewallForward, What: "a policy", Command: "mend it"}}
	now := time.Now()
	told, gone := 0, 0
	look := func(f []hostcheck.Finding) {
		fresh, end := teller.change(now, hostcheck.FirewallForward, f)
		told += len(fresh)
		if end {
			gone++
		}
		now = now.Add(time.Second)
	}
	look(found)
	if told != 1 {
		t.Fatal("what is found first is not told at once")
	}
	for range 300 {
		look(nil)
		look(found)
	}
	if all := told + gone; all < 2*maxChanges || all > 11*maxChanges {
		t.Errorf("told %d times in ten minutes", all)
	}
	for range 120 {
		look(nil)
	}
	if told != gone {
		t.Errorf("told %d times that it is there, and %d times that it is gone", told, gone)
	}
	for range 120 {
		look(found)
	}
	if told != gone+1 {
		t.Errorf("what stays is not told: %d times there, and %d times gone", told, gone)
	}
}

// Of several findings of one code each is told once, and again when it has been away.
func TestHostTellerTellsWhatIsNew(t *testing.T) {
	teller := reporter{byCode: map[hostcheck.Code]*codeReports{}}
	a, b := hostcheck.Finding{Code: hostcheck.Hairpin, Command: "a"},
		hostcheck.Finding{Code: hostcheck.Hairpin, Command: "b"}
	now := time.Now()
	for i, c := range []struct {
		found []hostcheck.Finding
		fresh int
		gone  bool
	}{
		{nil, 0, false},
		{[]hostcheck.Finding{a}, 1, false},
		{[]hostcheck.Finding{a, b}, 1, false},
		{[]hostcheck.Finding{{Code: hostcheck.Hairpin, Command: "a", What: "with other figures"}, b}, 0, false},
		{[]hostcheck.Finding{b}, 0, false},
		{[]hostcheck.Finding{a, b}, 1, false},
		{nil, 0, true},
		{nil, 0, false},
	} {
		if fresh, gone := teller.change(now, hostcheck.Hairpin, c.found); len(fresh) != c.fresh || gone != c.gone {
			t.Errorf("look %d: %d are new, gone %v; want %d, %v", i, len(fresh), gone, c.fresh, c.gone)
		}
	}
}
