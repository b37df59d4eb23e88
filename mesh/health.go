package mesh

import (
	"context"
	"fmt"
	"time"
)

// How often the data directory is looked at.
const (
	dataLook  = 5 * time.Second // is it there, and does what failed work again?
	dataProbe = 6               // looks between writes to it without a reason
)

// keepData watches over the data directory, in a goroutine of its own: a disk
// that hangs holds up this look and nothing else. A directory that somebody
// removed is made again, and everything is written to it; what could not be
// written is tried again (N3).
func (n *Node) keepData(ctx context.Context) error {
	tick := time.NewTicker(dataLook)
	defer tick.Stop()
	looked := make(chan struct{}, 1)
	looked <- struct{}{}
	told := ""
	for i := 1; ; i++ {
		select {
		case <-ctx.Done():
			return nil // a look that hangs is not waited for: the process ends
		case <-tick.C:
		}
		select {
		case <-looked:
			go func() {
				n.lookAtData(ctx, i%dataProbe == 0)
				looked <- struct{}{}
			}()
		default: // the last one is not over
		}
		text := n.dir.trouble()
		n.tellData(told, text)
		told = text
	}
}

// lookAtData checks the directory and repairs it, and sees whether the key file
// has been replaced.
func (n *Node) lookAtData(ctx context.Context, probe bool) {
	d := n.dir
	d.begin(fileProbe)
	gone := !d.present()
	var err error
	if gone {
		if err = d.remake(); err != nil {
			err = fmt.Errorf("data-dir: %s was removed, and cannot be made again: %w", d.path, err)
		}
	}
	if err == nil && (probe || d.unsaved() != nil || d.failing(fileProbe)) {
		err = d.probe()
	}
	d.end(fileProbe, err)
	if err == nil && (gone || d.unsaved() != nil) {
		if gone {
			n.log.Warn("the data directory was removed; it is made again, and everything written to it", "path", d.path)
		}
		n.saveAll(ctx)
	}
	n.keys.look(n.current().KeyFile)
}

// saveAll writes every file again.
func (n *Node) saveAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	_ = n.reg.Rewrite(ctx)
	n.chores.rewrite()
	_ = n.boxes.save()
	_, _ = n.keys.save(), n.sysctls.write()
	n.savePeers(n.host.Peers())
}

// tellData says when the directory ceases to work, or works again. status shows
// the reason while it lasts.
func (n *Node) tellData(was, text string) {
	switch {
	case text != "" && was == "":
		n.log.Error("the data directory does not work", "reason", text)
	case text == "" && was != "":
		n.log.Info("the data directory works again, and holds everything")
	}
}

// saveLast writes what is not on disk when the node stops; the error says what
// is lost.
func (n *Node) saveLast() error {
	if !n.dir.present() {
		if err := n.dir.remake(); err != nil {
			return fmt.Errorf("data-dir: %s was removed, and cannot be made again: %w; what was registered since the start "+
				"is lost", n.dir.path, err)
		}
		_ = n.reg.RewriteLast()
		_, _, _ = n.boxes.save(), n.keys.save(), n.sysctls.write()
	} else if n.dir.failing(fileTasks) {
		_ = n.reg.RewriteLast()
	}
	_ = n.sysctls.write()
	id := n.chores.id
	id.Lamport = n.host.Lamport()
	if id.check() == nil {
		_ = n.dir.save(fileNode, id)
	}
	if err := n.dir.unsaved(); err != nil {
		return err
	}
	return nil
}
