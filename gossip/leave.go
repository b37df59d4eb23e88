package gossip

import (
	"context"
	"time"
)

// Leave states the last, empty snapshot, gives it time to spread and leaves
// the membership (S9). The host then only waits for its context to end.
func (h *Host) Leave(ctx context.Context) error {
	if h.leaving.Swap(true) {
		return nil
	}
	for range 3 { // the goodbye is repeated: a lost one costs a false alarm
		err := h.Do(ctx, func(c *Core, now time.Duration) { c.Leave(now); h.effects() })
		if err != nil {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	left := make(chan error, 1)
	if !h.spawn(func() { left <- h.leaveMembership() }) {
		return ErrStopped
	}
	return <-left
}

// leaveMembership ends when memberlist has said goodbye to somebody, or soon.
func (h *Host) leaveMembership() (err error) {
	defer func() {
		if recover() != nil { // memberlist panics if it was shut down meanwhile
			err = ErrStopped
		}
	}()
	return h.ml.Leave(2 * time.Second)
}
