package box

import (
	"context"
	"errors"
	"fmt"
	"path"

	"meshd/mesh/control"
	"meshd/mesh/sandbox"
)

// NewKeeper returns the keeper of resolv.conf files, whose children are this very
// program.
func NewKeeper() *sandbox.Keeper {
	return sandbox.NewKeeper("/proc/self/exe", sandbox.KeeperCommand)
}

// planResolvConf reads the file that the request names. It returns nil if it names none.
func (b *Sandbox) planResolvConf(ctx context.Context, p *control.ParsedSandbox) (*sandbox.ResolvConf, error) {
	root, start, file := "", uint64(0), p.ResolvConf
	switch {
	case file == "":
		return nil, nil
	case file != control.ResolvConfAuto:
	case p.PID > 0:
		root, start, file = sandbox.ProcessRoot(p.PID), b.ns.Identity().Start, "/etc/resolv.conf"
	default:
		file = path.Join("/etc/netns", path.Base(p.Netns), "resolv.conf")
	}
	for _, other := range b.m.List() {
		s := other.record.load()
		if c := s.ResolvConf; other != b && c != nil && c.Root == root && c.Path == path.Clean(file) {
			return nil, control.Refuse(control.CodeConflict, "give each container a resolv.conf of its own",
				"resolv_conf: %s%s is already sandbox %s's", root, file, other.name)
		}
	}
	conf, err := b.m.cfg.Keeper.Plan(ctx, root, start, file, b.name)
	if err != nil {
		return nil, control.Refuse(control.CodeRefused, "", "resolv_conf: %v", err)
	}
	return conf, nil
}

// applyResolvConf writes the file, and writes down which one it was.
func (b *Sandbox) applyResolvConf(ctx context.Context, conf *sandbox.ResolvConf) error {
	applied, err := b.m.cfg.Keeper.Apply(ctx, conf)
	if err != nil || applied.File == conf.File {
		return err
	}
	return b.record.change(func(s *Saved) { s.ResolvConf = applied })
}

// ensureResolvConf writes the file again if it is as it was before the sandbox. Another
// content is left and reported: whoever wrote it may want it.
func (b *Sandbox) ensureResolvConf(ctx context.Context) {
	s := b.record.load()
	if !b.record.isKept() || s.ResolvConf == nil {
		return
	}
	err := b.applyResolvConf(ctx, s.ResolvConf)
	if errors.Is(err, sandbox.ErrChanged) {
		err = fmt.Errorf("%w: names are not asked of meshd there; detach the sandbox and attach it again", err)
	}
	b.report("resolv.conf", err)
}
