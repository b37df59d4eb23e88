//go:build linux

package chaos

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// at is a moment of the tests' timelines, in seconds.
func at(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }

func during(why string, from, to float64) span { return span{why, at(from), at(to)} }

// A failure is explained by a fault that was in force on its way, by no other.
func TestLinkExplains(t *testing.T) {
	l := timeline{links: []*badLink{
		{span: during("loss", 10, 20), a: 0, b: 1, tcp: true},
		{span: during("cut-udp", 10, 20), a: 0, b: 2},
		{span: during("isolate", 10, 30), a: 0, b: 3, tcp: true, noticed: true},
	}}
	for _, tt := range []struct {
		a, b     int
		from, to float64
		noticed  bool
		want     string
	}{
		{0, 1, 15, 16, true, "loss"},
		{1, 0, 15, 16, true, "loss"},
		{0, 1, 9, 10.5, false, "loss"}, // the fault began meanwhile
		{0, 1, 5, 9, false, ""},
		{0, 1, 21, 22, false, ""},
		{1, 2, 15, 16, false, ""}, // another link
		{0, 0, 15, 16, false, ""},
		{0, 2, 15, 16, false, ""}, // UDP only
		{0, 3, 12, 13, true, "isolate"},
		{0, 3, 25, 26, true, ""}, // it should have been noticed
		{0, 3, 25, 26, false, "isolate"},
		{3, 0, 12, 13, true, ""}, // says nothing of the other side
	} {
		if got := l.link(tt.a, tt.b, at(tt.from), at(tt.to), tt.noticed); got != tt.want {
			t.Errorf("link %+v: got %q", tt, got)
		}
	}
}

// A host may be behind the times only while something keeps the news from it,
// and a bounded time after that.
func TestMayBeStale(t *testing.T) {
	l := timeline{
		outages: []*outage{{during("stopped", 10, 20), 0}},
		links:   []*badLink{{span: during("cut", 50, 60), a: 0, b: 1}},
	}
	for _, tt := range []struct {
		client, owner int
		happened, at  float64
		want          string
	}{
		{0, 1, 5, 5.5, "just now"},
		{0, 1, 5, 7, ""},
		{0, 1, 12, 15, "stopped"},
		{1, 0, 12, 22, "stopped"},
		{1, 2, 12, 15, ""}, // neither was stopped
		{0, 1, 12, 26, ""}, // long over
		{0, 1, 5, 15, ""},  // it was known before
		{2, 1, 52, 55, "cut"},
		{2, 3, 52, 55, ""},
	} {
		if got := l.mayBeStale(tt.client, tt.owner, at(tt.happened), at(tt.at)); got != tt.want {
			t.Errorf("mayBeStale %+v: got %q", tt, got)
		}
	}
}

func TestOutageExplains(t *testing.T) {
	l := timeline{outages: []*outage{{during("killed", 10, 20), 2}, {span{why: "stopped", from: at(40)}, 2}}}
	for s, want := range map[float64]string{5: "", 15: "killed", 20.2: "killed", 21: "", 100: "stopped"} {
		if got := l.outageOf(2, at(s), at(s+.1)); got != want {
			t.Errorf("at %v: got %q, want %q", s, got, want)
		}
	}
	if got := l.outageOf(1, at(15), at(16)); got != "" {
		t.Errorf("another host: got %q", got)
	}
}

// The same seed gives the same schedule.
func TestScheduleIsOfTheSeed(t *testing.T) {
	draw := func() (all []fault) {
		rng := rand.New(rand.NewPCG(7, 1))
		for range 50 {
			fs, _ := round(rng, 5, nil)
			all = append(all, fs...)
		}
		return all
	}
	if a, b := draw(), draw(); !reflect.DeepEqual(a, b) {
		t.Errorf("one seed gave %v and %v", a, b)
	}
}
