// Package probe puts the questions of health checks: to a TCP port, an HTTP or gRPC
// server, a program. It knows nothing of tasks and verdicts.
//
// Whatever is asked may answer anything, for ever, slowly, or not at all: a run ends with
// its context, holds at most a few KiB of what it was told, and goes nowhere but to the
// address that it was given (C6). What keeps the run itself from being made is
// health.Unknown, and not a failure of the task (C5).
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"meshd/mesh/health"
)

// Target is what a check is put to.
type Target struct {
	// Addr is the address and port.
	Addr netip.AddrPort
	// Inside calls f on a thread that is in the network namespace of the task's sandbox;
	// nil: the host's. An error of its own wraps ErrNoNamespace.
	Inside func(f func() error) error
	// Env is what a program is told of the task, as KEY=VALUE.
	Env []string
}

// ErrNoNamespace says that the namespace of a sandbox could not be entered.
var ErrNoNamespace = errors.New("the sandbox cannot be entered")

// Run puts the check to the target and returns what it found. It ends with ctx or after
// the check's timeout, and soon after at the latest where a program has to be killed.
// Checks that are reported (ttl, docker) have nothing to run.
func Run(ctx context.Context, c *health.Check, t Target) health.Result {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	switch c.Definition.Type {
	case health.TCP:
		return runTCP(ctx, c, t)
	case health.HTTP, health.HTTPS:
		return runHTTP(ctx, c, t)
	case health.GRPC:
		return runGRPC(ctx, c, t)
	case health.Exec:
		return runExec(ctx, c, t)
	}
	return unknown("a check of type %s is reported, not run", c.Definition.Type)
}

// passed is a success with what was answered.
func passed(format string, args ...any) health.Result {
	return health.Result{Outcome: health.Passed, Output: health.Clean(fmt.Sprintf(format, args...))}
}

// failed is a failure of the task.
func failed(format string, args ...any) health.Result {
	return health.Result{Outcome: health.Failed, Output: health.Clean(fmt.Sprintf(format, args...))}
}

// unknown is a run that could not be made.
func unknown(format string, args ...any) health.Result {
	return health.Result{Outcome: health.Unknown, Output: health.Clean(fmt.Sprintf(format, args...))}
}

// failure tells a failure of the task from one of this node.
func failure(ctx context.Context, c *health.Check, err error) health.Result {
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled):
		return unknown("the check was ended")
	case ours(err):
		return unknown("this node cannot ask: %v", err)
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return failed("no answer within %s", c.Timeout)
	}
	return failed("%v", err)
}

// ours reports whether an error says that this node has run out of something.
func ours(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL, syscall.EAGAIN,
		ErrNoNamespace,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// dial connects to the target, and nowhere else. A port of TCP that was closed gracefully
// rests for as short as the kernel allows.
func dial(ctx context.Context, t Target) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	var conn net.Conn
	connect := func() (err error) {
		conn, err = d.DialContext(ctx, "tcp", t.Addr.String()) // a literal address: on this very thread
		return err
	}
	var err error
	if t.Inside != nil {
		err = t.Inside(connect)
	} else {
		err = connect()
	}
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(1)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, nil
}
