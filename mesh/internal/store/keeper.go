package store

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// How often a Keeper looks at the directory.
const (
	lookInterval  = 5 * time.Second
	probeInterval = 6 // looks between writes to a directory that seems to work
)

// Keeper watches over a directory while the process runs (N3). A directory that
// somebody removed is made again, and everything is written to it; what could not be
// written is tried again.
type Keeper struct {
	// Dir is the directory, locked.
	Dir *Dir
	// Rewrite writes every file again. It is called when the directory was made again,
	// or when a file could not be written and the disk works again.
	Rewrite func(ctx context.Context)
	// Looked is called after each look, from the same goroutine as Rewrite.
	Looked func()
	// Log is told when the directory stops to work, and when it works again.
	Log *slog.Logger
}

// Run looks at the directory until ctx ends. Each look runs in a goroutine of its
// own, so that a disk that hangs delays that look and nothing else; a look that
// hangs at the end is left behind, since the process ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	idle := make(chan struct{}, 1)
	idle <- struct{}{}
	before := ""
	for i := 1; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		select {
		case <-idle:
			go func() {
				k.look(ctx, i%probeInterval == 0)
				idle <- struct{}{}
			}()
		default: // the last look is not over
		}
		trouble := k.Dir.Trouble()
		k.report(before, trouble)
		before = trouble
	}
}

// look checks the directory and repairs it.
func (k *Keeper) look(ctx context.Context, probe bool) {
	d := k.Dir
	d.begin(probeName)
	gone := !d.Present()
	var err error
	if gone {
		if err = d.Remake(); err != nil {
			err = fmt.Errorf("data-dir: %s was removed, and cannot be made again: %w", d.path, err)
		}
	}
	if err == nil && (probe || d.Unsaved() != nil || d.Failing(probeName)) {
		err = d.Probe()
	}
	d.end(probeName, err)
	if err == nil && (gone || d.Unsaved() != nil) {
		if gone {
			k.Log.Warn("the data directory was removed; it is made again, and everything written to it", "path", d.path)
		}
		k.Rewrite(ctx)
	}
	k.Looked()
}

// report logs when the directory stops to work and when it works again; trouble says
// why while it does not.
func (k *Keeper) report(before, trouble string) {
	switch {
	case trouble != "" && before == "":
		k.Log.Error("the data directory does not work", "reason", trouble)
	case trouble == "" && before != "":
		k.Log.Info("the data directory works again, and holds everything")
	}
}
