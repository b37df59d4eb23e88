// Command vm runs programs on a Debian kernel in an emulated machine; see
// package meshd/test/vm.
//
//	vm run [flags] program [args]      one program; made for go test -exec 'vm run'
//	vm test [flags] packages           the tests of packages, in one machine
//	vm kernel [flags]                  get the kernel and tell where it is
//
// The exit code of run is that of the program; 124 is a timeout or a hang, 125
// a machine or kernel that failed, whose messages are then printed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"meshd/test/vm"
	"meshd/test/vm/guest"
)

func main() {
	if guest.Here() {
		guest.Main() // this program is its own init
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := command(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	os.Exit(code)
}

const usage = "usage: vm run|test|kernel [flags] …; vm COMMAND -h lists the flags"

func command(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New(usage)
	}
	o, rest, err := parse(args[0], args[1:])
	if err != nil {
		return 2, err
	}
	switch args[0] {
	case "run":
		return o.run(ctx, rest)
	case "test":
		return o.test(ctx, rest)
	case "kernel":
		k, err := o.findKernel(ctx)
		if err != nil {
			return 1, err
		}
		fmt.Printf("%s\n%s\n", k.Image, k.Tree)
		return 0, nil
	}
	return 2, fmt.Errorf("unknown command %q; %s", args[0], usage)
}

// options are the flags of all commands.
type options struct {
	// The machine.

	machine vm.Machine    // memory, processors, QEMU
	console bool          // show the kernel's messages
	kernel  string        // the directory of an unpacked kernel package; empty: one from the cache
	cache   string        // the directory of kernels that were downloaded
	timeout time.Duration // of each program
	modules string        // the kernel's modules to load, by commas

	// What is in it.

	tools string // the host's own tools, by commas
	files pairs  // further files
	env   list   // of its programs

	// Which tests run.

	pattern string // as of go test -run
	skip    string // as of go test -skip
}

// defaultTools are the host's own tools with which tests and people inspect the
// machine. By default, vm test takes them all and vm run none.
const defaultTools = "ip,nft,ipvsadm,ping,conntrack,sh,sleep,echo"

func parse(name string, args []string) (*options, []string, error) {
	o := &options{}
	f := flag.NewFlagSet("vm "+name, flag.ContinueOnError)
	cache, _ := os.UserCacheDir()
	f.StringVar(&o.cache, "cache", filepath.Join(cache, "meshd-vm"), "`directory` for kernels that were downloaded")
	f.StringVar(&o.kernel, "kernel", "", "`directory` into which a kernel package was unpacked, instead of the cache")
	if name == "run" || name == "test" {
		f.StringVar(&o.machine.QEMU, "qemu", "qemu-system-x86_64", "the emulator")
		f.IntVar(&o.machine.MemoryMiB, "m", 1024, "memory in `MiB`")
		f.IntVar(&o.machine.CPUs, "smp", 2, "number of processors")
		f.BoolVar(&o.machine.Count, "icount", name == "test",
			"one processor whose clock counts instructions, so that how busy this machine is does not matter")
		f.BoolVar(&o.console, "console", false, "show the kernel's messages too")
		f.DurationVar(&o.timeout, "timeout", 30*time.Minute, "of each program; a test binary's own comes first")
		f.StringVar(&o.modules, "modules", strings.Join(vm.DefaultModules(), ","),
			"kernel modules to load, `names` with commas; with a + before the first, besides the usual ones")
		f.StringVar(&o.machine.Arguments, "append", "", "more `words` of the kernel's command line, as ipv6.disable=1")
		f.Var(&o.files, "file", "`dst=src` puts a file or directory into the machine; repeat it")
		f.Var(&o.env, "env", "`NAME=value` for the programs; repeat it")
		tools := ""
		if name == "test" {
			tools = defaultTools
			f.StringVar(&o.pattern, "run", "", "only tests that match this `regexp`")
			f.StringVar(&o.skip, "skip", "", "no tests that match this `regexp`")
		}
		f.StringVar(&o.tools, "tools", tools, "tools of this machine to take along, `names` with commas")
	}
	if err := f.Parse(args); err != nil {
		return nil, nil, err
	}
	if o.console {
		o.machine.Console = os.Stderr
	}
	return o, f.Args(), nil
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// pairs is a list of dst=src.
type pairs [][2]string

func (p *pairs) String() string { return fmt.Sprint(*p) }

func (p *pairs) Set(s string) error {
	dst, src, ok := strings.Cut(s, "=")
	if !ok || dst == "" || src == "" {
		return fmt.Errorf("want dst=src, got %q", s)
	}
	*p = append(*p, [2]string{dst, src})
	return nil
}

// split takes names with commas apart.
func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func (o *options) findKernel(ctx context.Context) (vm.Kernel, error) {
	if o.kernel != "" {
		return vm.OpenKernel(o.kernel)
	}
	return vm.FindKernel(ctx, o.cache, func(s string) { fmt.Fprintln(os.Stderr, "vm:", s) })
}

// image starts an image with what the flags ask for.
func (o *options) image(ctx context.Context) (*vm.Image, error) {
	k, err := o.findKernel(ctx)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	modules := split(strings.TrimPrefix(o.modules, "+"))
	if strings.HasPrefix(o.modules, "+") {
		modules = append(vm.DefaultModules(), modules...)
	}
	im, err := vm.NewImage(k, self, modules)
	if err != nil {
		return nil, err
	}
	for _, tool := range split(o.tools) {
		if err := im.AddTool(tool); err != nil {
			return nil, err
		}
	}
	for _, f := range o.files {
		if err := im.AddFile(f[0], f[1]); err != nil {
			return nil, err
		}
	}
	return im, nil
}

// environment is that of every program; only what is named for this project
// comes from outside. Of a name that is there more than once the first counts:
// the flags', the outside's, ours.
func (o *options) environment(dir string) []string {
	env := slices.Clone(o.env)
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "MESHD_") || strings.HasPrefix(e, "GODEBUG=") || strings.HasPrefix(e, "GOTRACEBACK=") {
			env = append(env, e)
		}
	}
	env = append(env,
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "TMPDIR=/tmp", "PWD="+dir, "MESHD_SLOW=5")
	return once(env)
}

// once keeps the first entry of each name.
func once(env []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(env, func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		again := seen[name]
		seen[name] = true
		return again
	})
}
