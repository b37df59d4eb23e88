package logqueue_test

import (
	"log/slog"
	"os"

	"meshd/mesh/logqueue"
)

// A log that nobody reads keeps nobody waiting: lines that find no room are dropped
// and counted.
func Example() {
	queue := logqueue.New(os.Stdout)
	log := slog.New(slog.NewTextHandler(queue, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	log.Info("a node is gone", "node", "host3")
	queue.Close()
	// Output: level=INFO msg="a node is gone" node=host3
}
