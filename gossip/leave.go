package gossip

import (
	"context"
	"time"
)

// This file is how a host leaves in order: first the core, then the membership.

// The goodbye is sent several times: a lost one costs a false alarm.
const (
	goodbyeTimes    = 3
	goodbyeInterval = 100 * time.Millisecond
	leaveTimeout    = 2 * time.Second // until memberlist has said goodbye to a node
)

// Leave writes the last, empty snapshot of the node's streams, gives it time to spread
// and leaves the membership (S9). The host then only waits for Run's context to end.
// A second call does nothing.
func (h *Host) Leave(ctx context.Context) error {
	if h.leaving.Swap(true) {
		return nil
	}
	for range goodbyeTimes {
		err := h.Do(ctx, func(c *Core, now time.Duration) { c.Leave(now); h.applyEffects() })
		if err != nil {
			return err
		}
		select {
		case <-time.After(goodbyeInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	left := make(chan error, 1)
	if !h.tasks.spawn(func() { left <- h.leaveMembership() }) {
		return ErrStopped
	}
	return <-left
}

// leaveMembership returns when memberlist has said goodbye to a node, or soon.
func (h *Host) leaveMembership() (err error) {
	defer func() {
		if recover() != nil { // memberlist panics if it was shut down meanwhile
			err = ErrStopped
		}
	}()
	return h.ml.Leave(leaveTimeout)
}
