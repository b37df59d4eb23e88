package seeds

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
)

// TestSeeds: a node to join that is given by name counts before anybody was met
// there, and while its name cannot be looked up.
func TestSeeds(t *testing.T) {
	t.Parallel()
	s := New([]string{"10.0.0.1:7946", "a.example:7946", "[fd00::1]:7946", "a.example:7947", "b.example:7946"})
	answer, fail := netip.MustParseAddr("10.9.0.1"), error(nil)
	asked := 0
	s.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		if asked++; host == "b.example" {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{answer}, fail
	}
	check := func(want string) {
		t.Helper()
		s.look(t.Context())
		if got := fmt.Sprint(s.Addrs()); got != want {
			t.Errorf("known are %s, want %s", got, want)
		}
	}
	check("map[a.example:[10.9.0.1]]")
	answer = netip.MustParseAddr("10.9.0.2")
	check("map[a.example:[10.9.0.2]]")
	fail = errors.New("timeout")
	check("map[a.example:[10.9.0.2]]")
	if asked != 6 {
		t.Errorf("%d questions", asked)
	}
}
