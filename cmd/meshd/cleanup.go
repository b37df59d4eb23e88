package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"

	"meshd/mesh"
	"meshd/mesh/config"
)

const cleanupUsage = `meshd cleanup: remove from the kernel what a stopped meshd left for its next start

  meshd cleanup [--config FILE] [--data-dir DIR] [--socket PATH] [--netns PATH]... [--dry-run] [--keep-sysctls] [--force]

It removes IPVS services, nftables tables (meshd, meshd_nat), routes and routing
rules that are meshd's own, on the host and in the sandboxes that the data directory
knows, there the name server too, with what was in resolv.conf put back, and nothing
else. Sysctls that are still as meshd set them, since the host booted, are put back
as they were. It refuses while a meshd uses the data directory or the socket, or
balances there with others. Running it again does no harm.

Exit codes: 0 nothing of meshd's is left (or, with --dry-run, all was found that
is), 1 refused or failed, 2 usage.

`

// cleanup runs "meshd cleanup" and returns the exit code.
func cleanup(args []string, stdout, stderr io.Writer) int {
	cfg, code := configureCleanup(args, stdout, stderr)
	if code >= 0 {
		return code
	}
	cfg.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	places, err := mesh.Cleanup(ctx, cfg)
	if err != nil {
		fmt.Fprintln(stderr, "meshd cleanup:", err)
		return 1
	}
	failed := false
	for _, p := range places {
		describe(stdout, p, cfg.DryRun)
		if p.Err != nil || len(p.Left) > 0 {
			failed = true
		}
		if p.Err != nil {
			fmt.Fprintf(stderr, "meshd cleanup: %s: %v\n", p.Where, p.Err)
		}
	}
	if failed {
		return 1
	}
	return 0
}

// configureCleanup returns what to clean and -1, or an exit code.
func configureCleanup(args []string, stdout, stderr io.Writer) (mesh.CleanupConfig, int) {
	var cfg mesh.CleanupConfig
	var base config.Config
	file, err := configFile(args)
	if err == nil && file != "" {
		base, err = config.Read(file)
	}
	if err != nil {
		fmt.Fprintln(stderr, "meshd cleanup:", err)
		return cfg, 2
	}
	base = base.WithDefaults()
	fs := flag.NewFlagSet("meshd cleanup", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are printed once, below
	fs.String("config", "", "the daemon's YAML `FILE`, for data-dir and socket")
	cfg.DataDir, cfg.Socket = base.DataDir, base.Socket
	fs.Func("data-dir", "the daemon's `DIR` (default "+base.DataDir+")", path(&cfg.DataDir))
	fs.Func("socket", "the daemon's control socket, a `PATH` (default "+base.Socket+")", path(&cfg.Socket))
	fs.Func("netns", "clean the network namespace at `PATH` too; may be repeated", func(s string) error {
		if !strings.HasPrefix(s, "/") {
			return errors.New("write an absolute path, such as /run/netns/web")
		}
		cfg.NetNS = append(cfg.NetNS, s)
		return nil
	})
	fs.BoolVar(&cfg.DryRun, "dry-run", false, "list what would be removed, and remove nothing")
	fs.BoolVar(&cfg.KeepSysctls, "keep-sysctls", false,
		"leave sysctls as meshd set them, such as net.ipv4.ip_forward, for others who rely on them by now")
	fs.BoolVar(&cfg.Force, "force", false, "also while a meshd runs; it makes everything again")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, cleanupUsage)
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return cfg, 0
	case err != nil:
		fmt.Fprintln(stderr, "meshd cleanup:", config.FlagError(fs, err))
		return cfg, 2
	case fs.NArg() > 0:
		fmt.Fprintln(stderr, "meshd cleanup:", config.UnexpectedArgument(fs, args))
		return cfg, 2
	}
	return cfg, -1
}

// path returns the function of a flag that sets a path, which may not be empty.
func path(to *string) func(string) error {
	return func(s string) error {
		if strings.TrimSpace(s) == "" {
			return errors.New("it is empty; leave the flag out for the default")
		}
		if err := config.CheckPath(s); err != nil {
			return err
		}
		*to = s
		return nil
	}
}

// describe prints what was removed in one place, or would be.
func describe(w io.Writer, p mesh.Cleaned, dry bool) {
	defer describeSysctls(w, p, dry)
	if len(p.Found) == 0 {
		if p.Err == nil && len(p.PutBack) == 0 {
			fmt.Fprintf(w, "%s: nothing of meshd's\n", p.Where)
		}
		return
	}
	left := map[string]bool{}
	for _, r := range p.Left {
		left[r.What] = true
	}
	for _, r := range p.Found {
		did := "removed"
		switch {
		case dry:
			did = "would remove"
		case left[r.What]:
			did = "could not remove"
		}
		fmt.Fprintf(w, "%s: %s %s\n", p.Where, did, r)
	}
}

// describeSysctls prints which settings of the host were put back, or would be.
func describeSysctls(w io.Writer, p mesh.Cleaned, dry bool) {
	did := "put back"
	switch {
	case dry:
		did = "would put back"
	case p.Err != nil:
		did = "tried to put back"
	}
	for _, s := range p.PutBack {
		fmt.Fprintf(w, "%s: %s %s\n", p.Where, did, s)
	}
	for _, s := range p.Kept {
		fmt.Fprintf(w, "%s: left as it is: %s\n", p.Where, s)
	}
}
