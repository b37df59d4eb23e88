//go:build linux

package rig

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideEnv marks the process that runs inside; its value is World.Dir.
const insideEnv = "MESHD_RIG_DIR"

// ErrUnavailable is wrapped by what [Main] and [New] return on a machine, or
// for a user, that may not make network namespaces.
var ErrUnavailable = errors.New("network namespaces are not available")

// World is what a program knows of the namespaces it runs in.
type World struct {
	Dir      string // shared with the outside; removed when the program ends
	OuterPID string // of this process, as seen from outside; for nsenter
}

// Dir is [World.Dir], inside; outside it is empty.
func Dir() string { return os.Getenv(insideEnv) }

// Main runs inside(world) in a copy of this program that lives in namespaces
// of its own and returns its exit code. Before that, outside and with the
// machine's own network, it calls prepare (or not, if nil) with World.Dir.
//
// Call it once, first thing in main or TestMain: the copy starts from main too,
// with the same arguments. An error wraps [ErrUnavailable] if the machine does
// not allow this; inside was then not called.
func Main(prepare func(dir string) error, inside func(World) int) (int, error) {
	if dir := Dir(); dir != "" {
		return runInside(dir, inside), nil
	}
	dir, err := os.MkdirTemp("", "meshd-rig-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if prepare != nil {
		if err := prepare(dir); err != nil {
			return 1, err
		}
	}
	return runOutside(dir)
}

// runOutside starts the copy and waits for it. The calling thread is kept,
// because the copy is killed when the thread that started it dies.
func runOutside(dir string) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, status, err := startCopy(dir)
	if err != nil {
		return 1, err
	}
	stop := forwardSignals(cmd.Process)
	defer stop()
	told, err := io.ReadAll(status)
	if err == nil && string(told) != "ok" {
		err = fmt.Errorf("%w: %s; %s", ErrUnavailable, told, advice)
	}
	waitErr := cmd.Wait()
	if err != nil {
		return 1, err
	}
	if exit, ok := errors.AsType[*exec.ExitError](waitErr); ok && exit.ExitCode() < 0 {
		return 1, waitErr
	}
	return cmd.ProcessState.ExitCode(), nil
}

const advice = "run as root, or allow user namespaces " +
	"(sysctl user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1 " +
	"kernel.apparmor_restrict_unprivileged_userns=0)"

// startCopy starts this program again in new namespaces: as root if it is
// root, else (or if root lacks the capability) as the root of a new user
// namespace. The copy reports on the returned pipe how setting up went.
func startCopy(dir string) (*exec.Cmd, *os.File, error) {
	var last error
	for _, user := range []bool{os.Geteuid() != 0, true} {
		cmd, status, err := tryCopy(dir, user)
		if err == nil {
			return cmd, status, nil
		}
		if last = err; !errors.Is(err, unix.EPERM) {
			break
		}
	}
	return nil, nil, fmt.Errorf("%w: %w; %s", ErrUnavailable, last, advice)
}

func tryCopy(dir string, user bool) (*exec.Cmd, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if user {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		_ = r.Close()
		return nil, nil, err
	}
	return cmd, r, nil
}

// forwardSignals passes signals on to p, so that the copy can end in good
// order, until the returned function is called.
func forwardSignals(p *os.Process) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	go func() {
		for s := range signals {
			_ = p.Signal(s)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// runInside is the copy: it completes its namespaces, reports, and goes on.
func runInside(dir string, inside func(World) int) int {
	status := os.NewFile(3, "status")
	w := World{Dir: dir}
	w.OuterPID, _ = os.Readlink("/proc/self") // the outer /proc is still mounted
	if err := furnish(); err != nil {
		_, _ = io.WriteString(status, strings.TrimSpace(err.Error()))
		return 1
	}
	_, _ = io.WriteString(status, "ok")
	_ = status.Close()
	return inside(w)
}

// furnish makes the new namespaces usable: mounts that stay inside, a /proc of
// the new process namespace and a loopback device that is up.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount /proc: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
