package gossip

import (
	"fmt"
	"strings"
	"testing"
)

// The whole table: a row per phase and whether the membership lists the member,
// a column per sign. Capital: the phase to go to; a dot: as it was. With ! it is
// revived, with ? checked, with _ left in peace, with *
// pinged, with % asked whether it leaves.
const detectorTable = `
           listed unlisted parting left named heard reached relayed doubted silent cutoff expired missed
alive  +   A!     V?       .%      L    .     .     ._      .       V?      .      .      .       .
alive  -   A!     V?       .%      L    .     .     ._      .       V?      .      .      .       .
verify +   A!     .        .%      L    .     A!    .       S       .       S      .      .       G
verify -   A!     .        .%      L    .     A!    .       S       .       D      K      .       D
shaky  +   A!     .        .%      L    .     .     A!      .       .       .      .      .       .
shaky  -   A!     .        .%      L    .     A!    A!      .       V?      .      .      .       .
dead   +   A!     .        .%      L    V?    A!    .       S       .       .      K      .       .
dead   -   A!     .        .%      L    V?    A!    .       S       .       .      K      .       .
kept   +   A!     .        .%      L    .     A!    .       .       .       .      .      D       .
kept   -   A!     .        .%      L    .     A!    .       .       .       .      .      D       .
left   +   A!     .        .       L    V?    A!    .       .       .       .      .      .       .
left   -   A!     .        .       L    V?    A!    .       .       .       .      .      .       .
absent +   .*     .        .%      L    .     A!    A!      S       .       .      .      .       .
absent -   .*     .        .%      L    .     A!    A!      S       .       .      .      .       .
`

func TestDetectorTable(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(detectorTable), "\n")[1:]
	if len(lines) != 2*int(phases) {
		t.Fatalf("%d rows", len(lines))
	}
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) != 2+int(signs) {
			t.Fatalf("row %q has %d columns", line, len(f))
		}
		p, listed := phase(i/2), f[1] == "+"
		for s := range signs {
			to, do := transition(p, listed, s)
			got := "."
			if to != p || do == actRevive || s == signLeft {
				got = string("AVSDKLG"[to])
			}
			got += [...]string{"", "!", "?", "_", "*", "%"}[do]
			if want := f[2+s]; got != want {
				t.Errorf("%s %s, sign %d: %s, want %s", f[0], f[1], s, got, want)
			}
		}
	}
}

// What holds whatever the order of signs: words hide nobody whom we hear, and
// whoever is hidden comes back by one packet.
func TestDetectorLaws(t *testing.T) {
	hidden := func(p phase) bool { return p == phaseDead || p == phaseLeft || p == phaseAbsent }
	for p := range phases {
		for _, listed := range []bool{true, false} {
			for s := range signs {
				at := fmt.Sprintf("phase %d, listed %v, sign %d", p, listed, s)
				to, do := transition(p, listed, s)
				if !hidden(p) && hidden(to) && s != signLeft && s != signSilent && s != signExpired && s != signMissed {
					t.Errorf("%s: hidden by a word", at)
				}
				if hidden(to) && listed && s == signSilent && !hidden(p) {
					t.Errorf("%s: one that the membership reaches is hidden", at)
				}
				if do == actCheck && to != phaseVerify || do == actRevive && to != phaseAlive ||
					(do == actCalm || do == actPing || do == actAsk) && to != p {
					t.Errorf("%s: to %d with act %d", at, to, do)
				}
				if back, _ := transition(to, false, signHeard); back != phaseAlive {
					t.Errorf("%s: a packet does not bring it back", at)
				}
			}
		}
	}
}
