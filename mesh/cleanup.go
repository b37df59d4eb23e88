package mesh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"meshd/lb"
	"meshd/lb/holder"
	"meshd/mesh/control"
	"meshd/mesh/internal/balancing"
	"meshd/mesh/internal/box"
	"meshd/mesh/internal/store"
	"meshd/mesh/sandbox"
)

// CleanupConfig says what Cleanup works on. All fields but NetNS are required.
type CleanupConfig struct {
	DataDir string   // of the daemon that is to be removed
	Socket  string   // of the same
	NetNS   []string // paths of further network namespaces
	Force   bool     // also while a daemon runs: it makes everything again
	DryRun  bool     // only look
	// KeepSysctls leaves the host's settings as meshd set them, for who relies on
	// them by now.
	KeepSysctls bool
	Log         *slog.Logger
}

// Cleaned is what Cleanup found in one network namespace.
type Cleaned struct {
	Where string       // "host", or the namespace
	Found []lb.Remnant // what was removed, or would be
	Left  []lb.Remnant // what could not be removed
	Err   error        // why
	// PutBack are settings that are as they were found again, or would be; Kept
	// are those that stay, and why.
	PutBack, Kept []string
}

// Cleanup removes what a daemon left in the kernel for its next start, on the
// host and in the sandboxes of the data directory: virtual services, nftables
// tables, routes and marks of ours, and nothing else (L1). Sysctls that are still
// as meshd set them are put back (N8). It works without a mesh,
// and again. It refuses while a daemon uses the data directory or the socket;
// the error says how to go on. What fails in one namespace is in its result.
func Cleanup(ctx context.Context, cfg CleanupConfig) ([]Cleaned, error) {
	dir := store.Unlocked(cfg.DataDir)
	switch err := dir.CheckOwner(); {
	case errors.Is(err, fs.ErrNotExist):
		cfg.Log.Warn("the data directory is not there: the sandboxes and sysctls of a meshd that used it are not known, "+
			"and stay as they are", "path", cfg.DataDir)
	case err != nil:
		return nil, err
	}
	if !cfg.Force && !cfg.DryRun {
		release, err := checkNotRunning(ctx, cfg)
		if err != nil {
			return nil, err
		}
		defer release() // a daemon that is started meanwhile waits, or is refused
	}
	saved, err := readSandboxes(dir)
	if err != nil {
		return nil, err
	}
	all := []Cleaned{cleanPlace(ctx, "host", "", cfg)}
	if all[0].Err == nil {
		all[0].undoHostChanges(ctx, cfg)
	}
	for i := range saved {
		all = append(all, cleanSandbox(ctx, &saved[i], cfg))
	}
	for _, path := range cfg.NetNS {
		all = append(all, cleanPlace(ctx, "namespace "+path, path, cfg))
	}
	return all, nil
}

// cleanSandbox cleans a container that is still there: its load balancer, its
// name server's rules, and its resolv.conf.
func cleanSandbox(ctx context.Context, s *box.Saved, cfg CleanupConfig) Cleaned {
	where := "sandbox " + s.Name
	ns, err := box.Reopen(s)
	if errors.Is(err, sandbox.ErrGone) || errors.Is(err, fs.ErrNotExist) {
		return Cleaned{Where: where} // and everything in it
	}
	if err != nil {
		return Cleaned{Where: where, Err: err}
	}
	defer ns.Close()
	c := cleanPlace(ctx, where, ns.Path(), cfg)
	if errors.Is(c.Err, holder.ErrTaken) {
		return c
	}
	there, err := ns.Redirected(s.Port)
	c.Err = errors.Join(c.Err, err)
	if there {
		c.also(lb.Remnant{Area: lb.AreaTable, What: "nftables table ip meshd_dns", Detail: "name server"}, cfg,
			ns.RemoveRedirect)
	}
	if s.ResolvConf != nil {
		keeper := box.NewKeeper()
		written, err := keeper.Applied(ctx, s.ResolvConf)
		c.Err = errors.Join(c.Err, err)
		if written {
			c.also(lb.Remnant{Area: lb.AreaTable, What: "name server in " + s.ResolvConf.Path}, cfg,
				func() error { return keeper.Restore(ctx, s.ResolvConf) })
		}
	}
	return c
}

// also removes one thing more.
func (c *Cleaned) also(what lb.Remnant, cfg CleanupConfig, remove func() error) {
	c.Found = append(c.Found, what)
	if cfg.DryRun {
		return
	}
	if err := remove(); err != nil {
		c.Left = append(c.Left, what)
		c.Err = errors.Join(c.Err, err)
	}
}

// checkNotRunning refuses while a daemon would make again what is removed, and keeps one
// from starting with the data directory until release is called.
func checkNotRunning(ctx context.Context, cfg CleanupConfig) (release func(), err error) {
	const how = "stop it first (systemctl stop meshd), or use --force"
	release = func() {}
	unlock, err := store.Acquire(cfg.DataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist): // nor is the directory there
	case errors.Is(err, store.ErrInUse):
		return nil, fmt.Errorf("a meshd uses the data directory %s; %s", cfg.DataDir, how)
	case err != nil:
		return nil, fmt.Errorf("data-dir: %w; run as root", err)
	default:
		release = unlock
	}
	client := control.Dial(cfg.Socket)
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if v, err := client.Version(ctx); err == nil {
		release()
		return nil, fmt.Errorf("a meshd, node %s, answers on %s; %s", v.Node, cfg.Socket, how)
	}
	return release, nil
}

// cleanPlace cleans one namespace. IPVS comes first: which of its services are
// ours is told by routes and marks.
func cleanPlace(ctx context.Context, where, path string, cfg CleanupConfig) (c Cleaned) {
	c.Where = where
	ds, err := balancing.Drivers("auto", path, balancing.Hosting{}, cfg.Log)
	if err != nil {
		c.Err = err
		return c
	}
	defer func() {
		for _, d := range ds {
			c.Err = errors.Join(c.Err, d.Close())
		}
	}()
	if !cfg.Force && !cfg.DryRun {
		h := holder.New(path)
		if err := h.Take(); err != nil {
			c.Err = fmt.Errorf("%w, and would make again what is removed; stop it first, or use --force", err)
			return c
		}
		defer func() { c.Err = errors.Join(c.Err, h.Release()) }()
	}
	if c.Found, c.Err = remnants(ctx, ds); c.Err != nil || cfg.DryRun || len(c.Found) == 0 {
		return c
	}
	for _, d := range ds {
		if err := d.Teardown(ctx); err != nil {
			c.Err = errors.Join(c.Err, fmt.Errorf("%s: %w", d.Name(), err))
		}
	}
	var again error
	c.Left, again = remnants(ctx, ds)
	c.Err = errors.Join(c.Err, again)
	return c
}

// remnants lists what all drivers find; they share tables and routes.
func remnants(ctx context.Context, ds []lb.Driver) ([]lb.Remnant, error) {
	var all []lb.Remnant
	known := map[string]bool{}
	for _, d := range ds {
		found, err := d.Remnants(ctx)
		if err != nil {
			return all, fmt.Errorf("%s: %w", d.Name(), err)
		}
		for _, r := range found {
			if !known[r.What] {
				known[r.What] = true
				all = append(all, r)
			}
		}
	}
	lb.SortRemnants(all)
	return all, nil
}
