package rulewatch_test

import (
	"context"
	"testing"
	"time"

	"meshd/lb/rulewatch"
	"meshd/test/rig"
)

// run runs a watcher for the length of a test.
func run(t *testing.T, w *rulewatch.Watcher) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = w.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

func contextFor(t *testing.T, usual time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), rig.Patience(usual))
}
