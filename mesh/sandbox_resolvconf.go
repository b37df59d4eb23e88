package mesh

import (
	"context"
	"errors"
	"fmt"
	"path"

	"meshd/mesh/control"
	"meshd/mesh/sandbox"
)

// newKeeper returns the keeper of resolv.conf files, whose children are this very
// program.
func newKeeper() *sandbox.Keeper {
	return sandbox.NewKeeper("/proc/self/exe", sandbox.KeeperCommand)
}

// planResolvConf reads the file that the request names, or returns nil.
func (b *box) planResolvConf(ctx context.Context, p *control.ParsedSandbox) (*sandbox.ResolvConf, error) {
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
	for _, other := range b.m.list() {
		s, _ := other.record()
		if c := s.ResolvConf; other != b && c != nil && c.Root == root && c.Path == path.Clean(file) {
			return nil, control.Refuse(control.CodeConflict, "give each container a resolv.conf of its own",
				"resolv_conf: %s%s is already sandbox %s's", root, file, other.name)
		}
	}
	conf, err := b.m.keeper.Plan(ctx, root, start, file, b.name)
	if err != nil {
		return nil, control.Refuse(control.CodeRefused, "", "resolv_conf: %v", err)
	}
	return conf, nil
}

// applyResolvConf writes the file, and writes down which one it was.
func (b *box) applyResolvConf(ctx context.Context, conf *sandbox.ResolvConf) error {
	applied, err := b.m.keeper.Apply(ctx, conf)
	if err != nil || applied.File == conf.File {
		return err
	}
	return b.change(func(s *savedSandbox) { s.ResolvConf = applied })
}

// ensureResolvConf writes the file again if it is as it was before the sandbox,
// and tells if it is neither that nor ours: whoever changed it may want that.
func (b *box) ensureResolvConf(ctx context.Context) {
	s, kept := b.record()
	if !kept || s.ResolvConf == nil {
		return
	}
	err := b.applyResolvConf(ctx, s.ResolvConf)
	if errors.Is(err, sandbox.ErrChanged) {
		err = fmt.Errorf("%w: names are not asked of meshd there; detach the sandbox and attach it again", err)
	}
	b.note("resolv.conf", err)
}
