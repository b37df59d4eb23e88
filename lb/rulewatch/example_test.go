package rulewatch_test

import (
	"context"
	"fmt"
	"log/slog"

	"meshd/lb/rulewatch"
)

// A program that wants to repair its rules subscribes, and compares them whenever
// somebody else may have written to the ruleset.
func ExampleWatcher_Subscribe() {
	open := func(own func(port uint32) bool) (rulewatch.Kernel, error) { return rulewatch.Open("", own) }
	w := rulewatch.New(open, slog.Default())
	changes := w.Subscribe()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = w.Run(ctx) }()
	for range changes {
		if err := w.Err(); err != nil {
			fmt.Println("changes are not announced, so compare now and then:", err)
		}
		fmt.Println("others have committed", w.Counters().Heard, "transactions")
	}
}
