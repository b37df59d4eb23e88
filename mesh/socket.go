package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/notice"
)

// socketInterval is the time between looks at whether the control socket is there.
const socketInterval = 2 * time.Second

// socketKeeper keeps the node's control socket in its place (N7). Its methods but for run
// are safe for concurrent use.
type socketKeeper struct {
	socket *control.Socket
	log    *slog.Logger
	board  *notice.Board // for status, while the socket cannot be made

	remade atomic.Uint64 // how often it was removed and made again
	last   atomic.Int64  // when that happened last, Unix nanoseconds; 0: never
}

// run makes the socket again when it was removed, until ctx ends.
func (k *socketKeeper) run(ctx context.Context) error {
	tick := time.NewTicker(socketInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			k.look()
		}
	}
}

// look looks once, and logs what changed.
func (k *socketKeeper) look() {
	remade, err := k.socket.Restore()
	text := ""
	if err != nil {
		text = err.Error() + "; meshctl does not reach this node over it"
	}
	if k.board.Set("socket", text) && text != "" {
		k.log.Error("the control socket is not there", "reason", err)
	}
	if remade {
		k.remade.Add(1)
		k.last.Store(time.Now().UnixNano())
		k.log.Warn("somebody removed the control socket; it is made again", "path", k.socket.Addr().String())
	}
}

// remadeShown is how long status shows that the socket was removed.
const remadeShown = 10 * time.Minute

// warnings says that the socket was removed, for as long as status remembers drift.
func (k *socketKeeper) warnings(now time.Time) []string {
	last := k.last.Load()
	if since := now.Sub(time.Unix(0, last)); last != 0 && since < remadeShown {
		return []string{fmt.Sprintf("somebody removed the control socket %v ago; it is made again", since.Round(time.Second))}
	}
	return nil
}
