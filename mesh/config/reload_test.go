package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Every setting is either taken over by a running node or waits for the next start, and
// only those that are taken over change.
func TestTakeOver(t *testing.T) {
	check := func(c Config) *Settings {
		t.Helper()
		c.Node, c.Insecure = "a", true
		s, err := c.Check()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	was := check(Config{TTL: Duration(5 * time.Second)})
	next := check(Config{
		Join: []string{"10.0.0.1"}, DNSClients: []string{"10.0.0.0/8"}, Upstream: []string{"10.0.0.53", "corp=10.0.0.54"},
		LogLevel: "debug", MaxTasks: 7, Reservation: Duration(time.Hour), TableMemory: 1 << 30,
		TTL: Duration(9 * time.Second), Domain: "other.internal", LB: "none",
	})
	merged, changed, waiting := was.TakeOver(next)
	if got := strings.Join(changed, " "); got != "dns-clients join log-level max-tasks reservation table-memory upstream" {
		t.Errorf("changed: %s", got)
	}
	if got := strings.Join(waiting, " "); got != "domain lb ttl" {
		t.Errorf("waiting: %s", got)
	}
	if !slices.Equal(merged.Servers, next.Servers) || len(merged.DomainServers) != 1 ||
		!slices.Equal(merged.ClientRanges, next.ClientRanges) || merged.Limits() != next.Limits() {
		t.Errorf("merged: %+v", merged)
	}
	if merged.TTL != was.TTL || merged.Domain != was.Domain || merged.LB != was.LB {
		t.Errorf("what waits was taken over: %+v", merged)
	}
	if _, changed, waiting := merged.TakeOver(merged); len(changed)+len(waiting) > 0 {
		t.Errorf("of nothing, changed %v, waiting %v", changed, waiting)
	}
}
