package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"meshd/lb/hostcheck"
	"meshd/lb/hostmend"
	"meshd/lb/sysctl"
	"meshd/mesh/internal/hostchanges"
	"meshd/mesh/internal/store"
)

// openSysctls reads what former lives changed. A file that cannot be read is moved away:
// it must not keep a host from its services.
func (n *Node) openSysctls() error {
	var saved hostchanges.Saved
	if err := n.dir.Load(fileSysctls, &saved); err != nil {
		n.moveAway(fileSysctls, err, "cleanup cannot put back the sysctls that meshd set before")
		saved = hostchanges.Saved{}
	}
	n.sysctls = hostchanges.New(saved, func(s hostchanges.Saved) error { return n.dir.Save(fileSysctls, s) })
	return nil
}

// moveAway moves a file away that cannot be read and without which a node can start, and
// says what that means, once nothing can fail any more.
func (n *Node) moveAway(file string, why error, means string) {
	n.late = append(n.late, func() {
		path := n.dir.File(file)
		text := fmt.Sprintf("%v; moved to %s.corrupted: %s", why, path, means)
		if err := os.Rename(path, path+".corrupted"); err != nil {
			text += fmt.Sprintf(" (not moved: %v)", err)
		}
		n.log.Warn("a file of the data directory cannot be read", "detail", text)
		n.notices.Set(strings.TrimSuffix(file, ".json"), text)
	})
}

// hostChangesLeft is what cleanup finds of the changes of the host.
type hostChangesLeft struct {
	ours   []sysctl.Change        // still as meshd set them
	others []string               // what somebody else made of the rest
	ports  []hostmend.Port        // of bridges, still in hairpin mode
	rules  []hostcheck.AcceptRule // rules in chains of others
}

// readHostChanges returns what is left of the changes that the data directory remembers.
func readHostChanges(dir *store.Dir) (left hostChangesLeft, err error) {
	var saved hostchanges.Saved
	if err := dir.Load(fileSysctls, &saved); err != nil || !saved.Here() {
		return left, err
	}
	left.rules = saved.Rules
	left.ours, left.others, err = sysctl.Changed(saved.Changes)
	for _, p := range saved.Ports {
		on, portErr := hostmend.HairpinOn(p)
		if err = errors.Join(err, portErr); on {
			left.ports = append(left.ports, p)
		}
	}
	return left, err
}

// undoHostChanges puts the host's settings back as they were found, but for those that
// another program has changed since.
func (c *Cleaned) undoHostChanges(ctx context.Context, cfg CleanupConfig) {
	dir := store.Unlocked(cfg.DataDir)
	left, err := readHostChanges(dir)
	if err != nil {
		c.Err = errors.Join(c.Err, err)
		return
	}
	c.Kept = left.others
	fromRules := c.removeRules(ctx, left.rules, cfg.DryRun)
	if cfg.KeepSysctls {
		c.Err = errors.Join(c.Err, fromRules)
		for _, s := range left.ours {
			c.Kept = append(c.Kept, "sysctl "+s.String())
		}
		for _, p := range left.ports {
			c.Kept = append(c.Kept, "hairpin mode of port "+p.Name)
		}
		return
	}
	for _, p := range left.ports {
		c.PutBack = append(c.PutBack, "hairpin mode of port "+p.Name)
	}
	for _, s := range left.ours {
		c.PutBack = append(c.PutBack, "sysctl "+s.String())
	}
	if cfg.DryRun {
		return
	}
	err = errors.Join(fromRules, sysctl.PutBack(left.ours))
	for _, p := range left.ports {
		err = errors.Join(err, hostmend.HairpinOff(p))
	}
	if err != nil {
		c.Err = errors.Join(c.Err, err)
		return
	}
	if err := os.Remove(dir.File(fileSysctls)); err != nil && !errors.Is(err, os.ErrNotExist) {
		cfg.Log.Warn("the record of sysctls stays", slog.Any("error", err))
	}
}
