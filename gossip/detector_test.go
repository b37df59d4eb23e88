package gossip

import (
	"fmt"
	"strings"
	"testing"
)

// The whole table: a row per phase and whether the membership lists the member,
// a column per sign. A capital is the phase that follows, a dot the same phase. The
// act: ! is marked alive, ? is checked, _ is not pinged any more, * is pinged, % is
// asked whether it leaves.
const detectorTable = `
            listed  unlisted  goodbye  left  named  heard  reached  relayed  unanswered  silent  cutoff  expired  unproven  pushed
alive    +  A!      V?        .%       L     .      .      ._       .        V?          .       .       .        .         .
alive    -  A!      V?        .%       L     .      .      ._       .        V?          .       .       .        .         .
verify   +  A!      .         .%       L     .      A!     .        S        .           S       .       .        G         .
verify   -  A!      .         .%       L     .      A!     .        S        .           D       K       .        D         A!
relayed  +  A!      .         .%       L     .      .      A!       .        .           .       .       .        .         .
relayed  -  A!      .         .%       L     .      A!     A!       .        V?          .       .       .        .         .
dead     +  A!      .         .%       L     V?     A!     .        S        .           .       K       .        .         .
dead     -  A!      .         .%       L     V?     A!     .        S        .           .       K       .        .         A!
kept     +  A!      .         .%       L     .      A!     .        .        .           .       .       D        .         .
kept     -  A!      .         .%       L     .      A!     .        .        .           .       .       D        .         A!
left     +  A!      .         .        L     V?     A!     .        .        .           .       .       .        .         .
left     -  A!      .         .        L     V?     A!     .        .        .           .       .       .        .         .
absent   +  .*      .         .%       L     .      A!     A!       S        .           .       .       .        .         .
absent   -  .*      .         .%       L     .      A!     A!       S        .           .       .       .        .         .
`

func TestDetectorTable(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(detectorTable), "\n")
	for s, name := range strings.Fields(lines[0]) {
		if name != sign(s).String() {
			t.Errorf("column %q is of sign %v", name, sign(s))
		}
	}
	lines = lines[1:]
	if len(lines) != 2*int(numPhases) {
		t.Fatalf("%d rows", len(lines))
	}
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) != 2+int(numSigns) {
			t.Fatalf("row %q has %d columns", line, len(f))
		}
		p, listed := phase(i/2), f[1] == "+"
		if f[0] != p.String() {
			t.Errorf("row %q is of phase %v", line, p)
		}
		for s := range numSigns {
			to, do := transition(p, listed, s)
			got := "."
			if to != p || do == actMarkAlive || s == signGoodbyeConfirmed {
				got = string("AVSDKLG"[to])
			}
			got += [...]string{"", "!", "?", "_", "*", "%"}[do]
			if want := f[2+s]; got != want {
				t.Errorf("%v %s, sign %v: %s, want %s", p, f[1], s, got, want)
			}
		}
	}
}

// What holds whatever the order of signs: words hide nobody whom we hear, and
// whoever is hidden comes back by one packet.
func TestDetectorLaws(t *testing.T) {
	hidden := func(p phase) bool { return p == phaseDead || p == phaseLeft || p == phaseAbsent }
	for p := range numPhases {
		for _, listed := range []bool{true, false} {
			for s := range numSigns {
				at := fmt.Sprintf("phase %v, listed %v, sign %v", p, listed, s)
				to, do := transition(p, listed, s)
				may := s == signGoodbyeConfirmed || s == signSilent || s == signExpired || s == signUnproven
				if !hidden(p) && hidden(to) && !may {
					t.Errorf("%s: hidden by a word", at)
				}
				if hidden(to) && listed && s == signSilent && !hidden(p) {
					t.Errorf("%s: one that the membership reaches is hidden", at)
				}
				if do == actCheck && to != phaseVerify || do == actMarkAlive && to != phaseAlive ||
					(do == actStopPinging || do == actPing || do == actAskGoodbye) && to != p {
					t.Errorf("%s: to %v with act %d", at, to, do)
				}
				if back, _ := transition(to, false, signHeard); back != phaseAlive {
					t.Errorf("%s: a packet does not bring it back", at)
				}
			}
		}
	}
}
