package notice

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// A condition is told once a minute for each subject, however often it comes.
func TestReminder(t *testing.T) {
	var r SubjectLimiter
	now := time.Now()
	told, before := 0, 0
	for i := range 1000 {
		r.Do(now.Add(time.Duration(i)*100*time.Millisecond), "peer", func(n int) { told++; before += n })
	}
	if told != 2 || before != 599 {
		t.Errorf("told %d times, with %d before", told, before)
	}
	for i := range 10 * maxSubjects {
		r.Do(now, fmt.Sprint(i), func(int) {})
	}
	if len(r.last) > maxSubjects {
		t.Errorf("%d subjects are kept", len(r.last))
	}
	// Who makes up subjects gets no line for each.
	told, before = 0, 0
	for i := range 1000 {
		r.Do(now.Add(2*time.Hour), fmt.Sprint("made up ", i), func(n int) { told++; before += n })
	}
	r.Do(now.Add(3*time.Hour), "peer", func(n int) { told++; before += n })
	if told != LinesPerInterval+1 || before < 1000-LinesPerInterval {
		t.Errorf("told %d times, with %d before", told, before)
	}
}

// A condition is news when it changes, and not while it stays.
func TestBoard(t *testing.T) {
	var b Board
	if b.Get("disk") != "" || len(b.All()) != 0 || b.Set("disk", "") {
		t.Error("an empty board says something")
	}
	if !b.Set("socket", "gone") || !b.Set("disk", "full") || b.Set("disk", "full") || b.Get("disk") != "full" {
		t.Error("a change is not news, or what stays is")
	}
	if got := b.All(); !slices.Equal(got, []string{"full", "gone"}) {
		t.Errorf("by key: %q", got)
	}
	if !b.Set("disk", "") || b.Set("disk", "") || len(b.All()) != 1 {
		t.Error("an end is not news, or news twice")
	}
}

// A condition that others keep changing is told once a minute, as it is then;
// one that changes for the first time, at once.
func TestChangingConditionsArePaced(t *testing.T) {
	var p Condition
	start, told := time.Unix(1000, 0), 0
	for second := range 180 {
		p.Text = fmt.Sprint(second)
		if second%3 == 2 {
			p.Text = "" // ends, and comes back
		}
		if p.Due(start.Add(time.Duration(second) * time.Second)) {
			told++
		}
	}
	if told != 3 {
		t.Errorf("told %d times in three minutes", told)
	}
	p.Text = "last"
	if now := start.Add(time.Hour); !p.Due(now) || p.Due(now.Add(time.Hour)) {
		t.Error("what stays is told once")
	}
}
