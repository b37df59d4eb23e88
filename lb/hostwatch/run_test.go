package hostwatch_test

import (
	"context"
	"testing"

	"meshd/lb/hostwatch"
)

// run runs a watcher for the length of a test.
func run(t *testing.T, w *hostwatch.Watcher) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = w.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
}
