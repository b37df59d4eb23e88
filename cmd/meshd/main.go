// Meshd is the daemon of the mesh: one per host. It gossips the host's tasks,
// answers DNS and programs the kernel's load balancer.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"meshd/mesh"
	"meshd/mesh/config"
	"meshd/mesh/logqueue"
	"meshd/mesh/sandbox"
)

// version is set by the Makefile.
var version = "dev"

const usage = `meshd: service discovery and load balancing for a fleet of hosts, without a manager

  meshd --config FILE
  meshd --node NAME --bind IP[:PORT] --join IP[:PORT][,…] --data-dir DIR --socket PATH
        --dns IP[:PORT] --lb auto|ipvs|nft|none --key-file FILE [--domain D]
  meshd doctor          say what of this host would be against it, before it is started
  meshd cleanup         remove what a stopped meshd left in the kernel: see meshd cleanup --help

Flags win over the file, whose names are the same. SIGTERM leaves the mesh in
order (other nodes drop this one's tasks at once); SIGINT does too; SIGQUIT
stops at once, as a crash would. SIGHUP reads the configuration again and takes
over --log-level, --join, --upstream, --dns-clients, the keys of --key-file,
--max-tasks, --reservation and --table-memory; what waits for the next start is
logged. Registered tasks are stated again at the next start. Exit codes: 0 stopped or left, 1 failed, 2 wrong flags,
values or configuration, 3 stopped or left, but not everything is saved.

`

func main() {
	if len(os.Args) > 1 && os.Args[1] == "cleanup" {
		os.Exit(cleanup(os.Args[2:], os.Stdout, os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == "doctor" {
		os.Exit(doctor(os.Args[2:], os.Stdout, os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == sandbox.KeeperCommand { // only meshd starts this
		os.Exit(sandbox.ServeKeeper(os.Stdin, os.Stdout))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0 done, 1 failed, 2 usage, 3 done but for what could
// not be saved.
func run(args []string, stdout, stderr io.Writer) int {
	cfg, code := configure(args, stdout, stderr)
	if code >= 0 {
		return code
	}
	lines := logqueue.New(stderr) // a log without a reader must not stop the daemon
	defer lines.Close()
	stderr, cfg.LogDropped = lines, lines.Dropped
	level := new(slog.LevelVar)
	log := logger(cfg, level, lines)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // before there is anything to reload: it must not end the process
	defer signal.Stop(hangups)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE) // the log has no reader; not Ignore, which children inherit
	defer signal.Stop(broken)
	node, err := mesh.New(cfg, buildVersion(), log)
	if errors.Is(err, config.ErrInvalid) {
		fmt.Fprintln(stderr, "meshd:", err)
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "meshd:", err)
		return 1
	}
	again := &reloader{args: args, node: node, log: log, level: level}
	go again.run(ctx, hangups)
	err = serve(ctx, stop, node)
	if err != nil {
		fmt.Fprintln(stderr, "meshd:", err)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, mesh.ErrUnsaved): // it has left; the unit must not start it again
		return 3
	}
	return 1
}

// reloader reads the configuration again upon SIGHUP.
type reloader struct {
	args  []string
	node  *mesh.Node
	log   *slog.Logger
	level *slog.LevelVar
}

// run reloads upon each signal until ctx ends. A terminal that closes sends one,
// too; the configuration is then the same, and nothing changes.
func (r *reloader) run(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			r.reload(ctx)
		}
	}
}

// reloadLimit bounds one reload.
const reloadLimit = 10 * time.Second

// reload applies what can change while the daemon runs. It logs what changed and
// what waits for the next start, or why the configuration is refused.
func (r *reloader) reload(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reloadLimit)
	defer cancel()
	var said strings.Builder
	cfg, code := configure(r.args, &said, &said)
	var done mesh.Reloaded
	err := errors.New(strings.TrimPrefix(strings.TrimSpace(said.String()), "meshd: "))
	if code < 0 {
		done, err = r.node.Reload(ctx, cfg)
	}
	if err != nil {
		r.log.Error("SIGHUP: the configuration is refused; meshd goes on as it is", "error", err)
		return
	}
	r.level.Set(levelOf(cfg))
	r.log.Warn("SIGHUP: the configuration is read again", "changed", done.Changed, "at_the_next_start", done.Waiting)
	for _, note := range done.Notes {
		r.log.Warn("SIGHUP: a note on what was read", "note", note)
	}
}

// serve runs the node. The first signal says goodbye to the mesh and stops;
// a second one, or five seconds, stop at once.
func serve(ctx context.Context, reset func(), node *mesh.Node) error {
	run, cancel := context.WithCancel(context.Background())
	defer cancel()
	finished := make(chan error, 1)
	go func() { finished <- node.Run(run) }()
	select {
	case err := <-finished:
		return err
	case <-ctx.Done():
	}
	reset() // a second signal kills
	last, end := context.WithTimeout(context.Background(), 5*time.Second)
	node.Goodbye(last)
	end()
	cancel()
	return <-finished
}

// configure returns the configuration and -1, or an exit code. The help and the
// version, if asked for, go to stdout.
func configure(args []string, stdout, stderr io.Writer) (config.Config, int) {
	var cfg config.Config
	path, err := configFile(args)
	if err == nil && path != "" {
		cfg, err = config.Read(path)
	}
	if err != nil {
		fmt.Fprintln(stderr, "meshd:", err)
		return cfg, 2
	}
	fs := flag.NewFlagSet("meshd", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are printed once, below
	fs.String("config", "", "YAML `FILE` with the names of the flags")
	show := fs.Bool("version", false, "print the version and exit")
	cfg.RegisterFlags(fs)
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return cfg, 0
	case err != nil:
		fmt.Fprintln(stderr, "meshd:", config.FlagError(fs, err))
		return cfg, 2
	case fs.NArg() > 0:
		fmt.Fprintln(stderr, "meshd:", config.UnexpectedArgument(fs, args))
		return cfg, 2
	case *show:
		fmt.Fprintln(stdout, "meshd", buildVersion())
		return cfg, 0
	}
	return cfg, -1
}

// configFile finds --config before the flags are parsed, since flags win.
func configFile(args []string) (string, error) {
	path, found := "", false
	for i, a := range args {
		if a == "--" {
			break
		}
		name, value, joined := strings.Cut(a, "=")
		if name != "-config" && name != "--config" {
			continue
		}
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		if found {
			return "", errors.New("--config: there are two; give one FILE")
		}
		if strings.TrimSpace(value) == "" {
			return "", errors.New("--config needs a FILE")
		}
		path, found = value, true
	}
	return path, nil
}

// logger returns a logger that follows level, which starts as configured.
func logger(cfg config.Config, level *slog.LevelVar, w io.Writer) *slog.Logger {
	level.Set(levelOf(cfg))
	opts := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func levelOf(cfg config.Config) (level slog.Level) {
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // checked by mesh.New and Reload; info otherwise
	return level
}

func buildVersion() string {
	if b, ok := debug.ReadBuildInfo(); ok && version == "dev" && b.Main.Version != "" && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return version
}
