package hostwatch_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"meshd/lb/hostfacts"
	"meshd/lb/hostwatch"
)

// The facts are a snapshot with a channel that is closed when there is a newer one, so
// that a reader misses no change.
func ExampleWatcher_Facts() {
	open := func() (hostwatch.Kernel, error) { return hostwatch.Open("", hostfacts.DefaultPools()) }
	w := hostwatch.New(open, slog.Default())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = w.Run(ctx) }()
	pool := netip.MustParsePrefix("10.96.0.0/16")
	for {
		facts, changed := w.Facts()
		for _, c := range hostfacts.Conflicts(pool, facts) {
			fmt.Println(c)
		}
		<-changed
	}
}
