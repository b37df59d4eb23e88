package probe

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meshd/mesh/health"
)

// killDelay is how long a program that was killed may hold the pipe of its output, as
// one of its children does that has left the group.
const killDelay = 500 * time.Millisecond

// runExec runs a program in a process group of its own. At its end, whatever end it is,
// all of the group is killed: what a check has started does not outlive it. Exit code 0
// is a success, 1 a warning, and any other a failure.
func runExec(ctx context.Context, c *health.Check, t Target) health.Result {
	done := make(chan health.Result, 1)
	go func() {
		// The kernel kills the program when the thread that started it ends: the goroutine
		// keeps the thread until the program has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- command(ctx, c, t)
	}()
	return <-done
}

func command(ctx context.Context, c *health.Check, t Target) health.Result {
	argv := c.Definition.Command
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out health.Output
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, "/"
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
	}, t.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = killDelay
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		if ctx.Err() != nil {
			return failure(ctx, c, err)
		}
		return unknown("the program cannot be started: %v", err)
	}
	// The group is killed before its leader is reaped: until then its number is nobody else's.
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return exited(ctx, c, &out, cmd.Wait())
}

// exited says what the end of a program means.
func exited(ctx context.Context, c *health.Check, out *health.Output, err error) health.Result {
	text := out.String()
	exit, isExit := errors.AsType[*exec.ExitError](err)
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled):
		return unknown("the check was ended")
	case ctx.Err() != nil:
		return failed("the program did not end within %s\n%s", c.Timeout, text)
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // it ended well, and left something behind, which is killed now
		return passed("%s", text)
	case isExit && exit.ExitCode() == 1:
		return health.Result{Outcome: health.Warned, Output: text}
	}
	return failed("%v\n%s", err, text)
}
