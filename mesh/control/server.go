package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// DefaultSocket is where meshd listens unless told otherwise.
const DefaultSocket = "/run/meshd/meshd.sock"

// socketMode lets the owner and the group in: the group is the access control.
const socketMode = 0o660

// Listen is ListenFor with the group of the process.
func Listen(path string) (net.Listener, error) { return ListenFor(path, -1) }

// ListenFor opens the unix socket at path with mode 0660 for a group; -1: that
// of the process. It replaces the socket that a dead process left and nothing
// else: it returns an error that wraps ErrInUse if a process answers there, and
// one that wraps fs.ErrExist if the path is not a socket. A directory in which
// anybody could put a socket of their own in its place is refused. Closing the
// listener removes the socket.
func ListenFor(path string, group int) (net.Listener, error) {
	if len(path) > 104 {
		return nil, fmt.Errorf("socket %s: the path has %d characters, at most 104 work everywhere; choose a shorter one", path, len(path))
	}
	if dir, err := os.Stat(filepath.Dir(path)); err == nil && dir.Mode().Perm()&0o002 != 0 && dir.Mode()&fs.ModeSticky == 0 {
		return nil, fmt.Errorf("socket %s: its directory is writable for all, who could put another socket there; chmod o-w %s, or choose another path", path, filepath.Dir(path))
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket %s: its directory does not exist; create it or choose another path: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if group >= 0 {
		if err = os.Lchown(path, -1, group); errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("it cannot be given to group %d: meshd needs CAP_CHOWN for that, or to be a member of the group: %w", group, err)
		}
	}
	if err = errors.Join(err, os.Chmod(path, socketMode)); err != nil {
		return nil, errors.Join(fmt.Errorf("socket %s: %w", path, err), l.Close())
	}
	return l, nil
}

// clearStale removes the socket at path if nobody answers there.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("socket %s: %w and is not a socket; move it away or choose another path", path, fs.ErrExist)
	}
	conn, err := net.DialTimeout("unix", path, 2*time.Second)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%w: a process already answers on %s; stop that meshd, or give this one another --socket", ErrInUse, path)
	}
	if errors.Is(err, fs.ErrPermission) || isTimeout(err) {
		return fmt.Errorf("%w: cannot tell whether %s is in use (%w); stop the process that has it, or choose another path", ErrInUse, path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("socket %s: left by a dead process and not removable: %w", path, err)
	}
	return nil
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// idleLimit is how long a connection may wait for its next request.
const idleLimit = 2 * time.Minute

// shutdownLimit is how long Serve lets requests finish.
const shutdownLimit = 5 * time.Second

// Serve serves the API over b on l until ctx ends: watches end at once, other
// requests have some seconds to finish. It closes l, and returns nil after ctx
// ended and an error if l failed.
func Serve(ctx context.Context, l net.Listener, b Backend, log *slog.Logger) error {
	return serve(ctx, l, b, log, defaultLimits())
}

func serve(ctx context.Context, inner net.Listener, b Backend, log *slog.Logger, lim limits) error {
	stop := make(chan struct{})
	l := boundConnections(inner, lim.connections)
	srv := &http.Server{
		Handler: newHandler(b, log, stop, lim), ReadHeaderTimeout: lim.body, IdleTimeout: idleLimit, ConnContext: withConnection,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		close(stop)
		return fmt.Errorf("serve control API: %w", errors.Join(err, srv.Close()))
	case <-ctx.Done():
	}
	close(stop)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	if err := srv.Shutdown(limit); err != nil {
		log.Warn("control requests cut off", "error", err)
		_ = srv.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control API: %w", err)
	}
	return nil
}
