package registry

import (
	"context"
	"fmt"
)

// turn lets one request after the other pass.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn, until ctx ends.
func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another request: %w", ctx.Err())
	}
}

// give ends the turn.
func (t turn) give() { <-t }
