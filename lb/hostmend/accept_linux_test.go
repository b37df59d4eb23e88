package hostmend_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"meshd/lb/hostcheck"
	"meshd/lb/hostmend"
	"meshd/test/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.TestMain(nil, m.Run)) }

// TestRulesOfNft adds rules to a chain of others: as a whole, or not at all, however
// often it is tried; and takes back those of ours only.
func TestRulesOfNft(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	host := rig.NewTest(t, 1).Hosts()[0]
	nft := func(line string) string {
		t.Helper()
		out, err := host.Output("nft", strings.Fields(line)...)
		if err != nil {
			t.Fatalf("%s: %s %v", line, out, err)
		}
		return string(out)
	}
	nft("add table ip others")
	nft("add chain ip others forward { type filter hook forward priority 0 ; policy drop ; }")
	nft("add rule ip others forward ip daddr 192.0.2.1 accept")
	let := func(match string) hostcheck.AcceptRule {
		return hostcheck.AcceptRule{
			Family: "ip", Table: "others", Chain: "forward", Program: "nft", Match: strings.Fields(match),
			VIPs: true,
		}
	}
	one, two, wrong := let("ct original ip daddr 10.96.0.0/16"),
		let("ct original ip daddr { 10.97.0.0/16, 10.99.0.0/16 }"), let("what nft does not know")
	do := func(f func(ctx context.Context) error) error { return host.Do(func() error { return f(t.Context()) }) }
	for i, c := range []struct {
		lets  []hostcheck.AcceptRule
		fails bool
		ours  int // afterwards
	}{
		{[]hostcheck.AcceptRule{one, wrong}, true, 0},
		{[]hostcheck.AcceptRule{one, two}, false, 2},
		{[]hostcheck.AcceptRule{two, wrong}, true, 2},
		{[]hostcheck.AcceptRule{one}, false, 1},
	} {
		for attempt := range 3 {
			added := false
			err := do(func(ctx context.Context) (err error) { added, err = hostmend.Accept(ctx, c.lets); return err })
			if (err != nil) != c.fails || !c.fails && added != (attempt == 0) {
				t.Errorf("case %d, attempt %d: added %v, %v", i, attempt, added, err)
			}
			if got := strings.Count(nft("list chain ip others forward"), hostcheck.RuleComment); got != c.ours {
				t.Errorf("case %d, attempt %d: there are %d rules of ours, want %d", i, attempt, got, c.ours)
			}
		}
	}
	revoke := func(ctx context.Context) error { return hostmend.Revoke(ctx, []hostcheck.AcceptRule{one}) }
	if err := do(revoke); err != nil {
		t.Error(err)
	}
	if got := nft("list chain ip others forward"); strings.Contains(got, hostcheck.RuleComment) ||
		!strings.Contains(got, "192.0.2.1") {
		t.Errorf("after all was taken back there is %s", got)
	}
}
