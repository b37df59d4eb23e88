package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/notice"
)

// socketLook is the time between looks at whether the control socket is there.
const socketLook = 2 * time.Second

// doorway keeps the node's control socket where it belongs. Its methods but for
// run are safe for concurrent use.
type doorway struct {
	socket *control.Socket
	log    *slog.Logger
	told   *notice.Board // status shows what does not work

	times atomic.Uint64 // that somebody removed it, and it was made again
	last  atomic.Int64  // the latest of them, Unix nanoseconds
}

// run makes the socket again when somebody removes it, until ctx ends.
func (d *doorway) run(ctx context.Context) error {
	tick := time.NewTicker(socketLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.look()
		}
	}
}

// look looks once, and tells what changed.
func (d *doorway) look() {
	remade, err := d.socket.Look()
	text := ""
	if err != nil {
		text = err.Error() + "; meshctl does not reach this node over it"
	}
	if d.told.Set("socket", text) && text != "" {
		d.log.Error("the control socket is not there", "reason", err)
	}
	if remade {
		d.times.Add(1)
		d.last.Store(time.Now().UnixNano())
		d.log.Warn("somebody removed the control socket; it is made again", "path", d.socket.Addr().String())
	}
}

// warnings says that somebody removed the socket lately.
func (d *doorway) warnings(now time.Time) []string {
	last := d.last.Load()
	if since := now.Sub(time.Unix(0, last)); last != 0 && since < driftMemory {
		return []string{fmt.Sprintf("somebody removed the control socket %v ago; it is made again", since.Round(time.Second))}
	}
	return nil
}
