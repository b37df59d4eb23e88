package gossip

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestIsolation: who reaches none of those whom it should join is told so, with what
// a person can mend first; not before there was time for an answer, and not once
// somebody is met.
func TestIsolation(t *testing.T) {
	now := time.Now()
	j := testJoiner(nil, "10.0.0.1:7946", addr(1).String(), addr(2).String())
	says := func(at time.Time, words ...string) {
		t.Helper()
		got := j.isolation(at)
		for _, w := range words {
			if !strings.Contains(got, w) {
				t.Fatalf("says %q, not %q", got, w)
			}
		}
		if len(words) == 0 && got != "" {
			t.Fatalf("says %q, want nothing", got)
		}
	}
	says(now)
	dialled(j, now)
	says(now.Add(dialPatience / 2))
	says(now.Add(dialPatience), "of 2 addresses to join 2 do not let it in", "no reply", "firewall")
	fail := func(a, text string) {
		j.ended(a, now, time.Second)
		j.attempts[a].err = joinError(errors.New(text))
	}
	fail(addr(1).String(), "connection refused")
	says(now, "of 2 addresses to join 1", addr(1).String(), "is meshd running there")
	fail(addr(2).String(), "EOF")
	says(now, "of 2 addresses to join 2", addr(2).String(), "--key-file")
	j.setListed("b", addr(1))
	says(now)
	j.setListed("b", netip.AddrPort{})
	says(now, "--key-file")

	// The membership takes it for dead at an incarnation that it cannot outdo; it answers.
	j.requestJoin("b", addr(1))
	now = time.Now()
	says(now)
	says(now.Add(2*answerMemory), "--key-file")
}
