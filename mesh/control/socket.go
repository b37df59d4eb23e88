package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// DefaultSocket is where meshd listens unless --socket names another path.
const DefaultSocket = "/run/meshd/meshd.sock"

// socketMode lets the owner and the group in: the group is the access control.
const socketMode = 0o660

// Socket is the unix socket of the control API: a net.Listener that survives the
// removal of its file, which Restore makes again. It is safe for concurrent use.
type Socket struct {
	path  string
	group int // that may connect; -1: the group of the process

	mu     sync.Mutex // guards what follows
	now    *net.UnixListener
	file   fs.FileInfo // the socket file of now
	closed bool
}

// Listen is ListenFor with the group of the process.
func Listen(path string) (*Socket, error) { return ListenFor(path, -1) }

// ListenFor opens the unix socket at path with mode 0660 for a group; -1 is the
// group of the process. It replaces the socket that a dead process left, and
// nothing else: it returns an error that wraps ErrInUse if a process answers
// there, and one that wraps fs.ErrExist if the path is not a socket. It refuses a
// directory in which every user could replace the socket. Closing the socket
// removes its file.
func ListenFor(path string, group int) (*Socket, error) {
	if len(path) > 104 {
		return nil, fmt.Errorf("socket %s: the path has %d characters, at most 104 work everywhere; choose a shorter one",
			path, len(path))
	}
	s := &Socket{path: path, group: group}
	var err error
	s.now, s.file, err = s.open()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// open makes the socket. Its file outlives the listener; Close removes it.
func (s *Socket) open() (*net.UnixListener, fs.FileInfo, error) {
	path := s.path
	if dir, err := os.Stat(filepath.Dir(path)); err == nil && dir.Mode().Perm()&0o002 != 0 &&
		dir.Mode()&fs.ModeSticky == 0 {
		return nil, nil, fmt.Errorf("socket %s: its directory is writable for all, who could put another socket there; "+
			"chmod o-w %s, or choose another path", path, filepath.Dir(path))
	}
	if err := clearStale(path); err != nil {
		return nil, nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("socket %s: its directory does not exist; create it or choose another path: %w", path,
			err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("socket %s: %w", path, err)
	}
	file, err := s.setAccess()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("socket %s: %w", path, err), l.Close())
	}
	l.SetUnlinkOnClose(false) // the file at the path may be another one by then
	return l, file, nil
}

// setAccess lets the owner and the group connect, and returns the socket file.
func (s *Socket) setAccess() (fs.FileInfo, error) {
	if s.group >= 0 {
		err := os.Lchown(s.path, -1, s.group)
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("it cannot be given to group %d: meshd needs CAP_CHOWN for that, or to be a member of the "+
				"group: %w", s.group, err)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(s.path, socketMode); err != nil {
		return nil, err
	}
	return os.Lstat(s.path)
}

// Restore makes the socket again if its file or its directory was removed, and
// reports whether it did. Existing connections continue. It returns an error if
// the socket could not be made, or if another file is in its place, which it
// leaves alone.
func (s *Socket) Restore() (remade bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, nil
	}
	switch file, err := os.Lstat(s.path); {
	case err == nil && os.SameFile(file, s.file):
		return false, nil
	case err == nil:
		return false, fmt.Errorf("socket %s: somebody put something else in its place; "+
			"remove it, and meshd makes its own again", s.path)
	case !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("socket %s: %w", s.path, err)
	}
	if err := os.Mkdir(filepath.Dir(s.path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, fmt.Errorf("socket %s: its directory was removed, and cannot be made again: %w", s.path, err)
	}
	l, file, err := s.open()
	if err != nil {
		return false, fmt.Errorf("the control socket was removed, and cannot be made again: %w", err)
	}
	old := s.now
	s.now, s.file = l, file
	return true, old.Close() // Accept goes on with the new one
}

// current returns the present listener, and whether the socket was closed.
func (s *Socket) current() (l *net.UnixListener, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.closed
}

// Accept implements net.Listener.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		l, _ := s.current()
		c, err := l.Accept()
		if err == nil {
			return c, nil
		}
		if now, closed := s.current(); closed || now == l {
			return nil, err
		}
	}
}

// Close implements net.Listener. It removes the file, unless another one has
// taken its place.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	if file, err := os.Lstat(s.path); err == nil && os.SameFile(file, s.file) {
		_ = os.Remove(s.path)
	}
	return s.now.Close()
}

// Addr implements net.Listener.
func (s *Socket) Addr() net.Addr {
	l, _ := s.current()
	return l.Addr()
}

// clearStale removes the socket at path if no process answers there.
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
		return fmt.Errorf("%w: a process already answers on %s; stop that meshd, or give this one another --socket", ErrInUse,
			path)
	}
	if errors.Is(err, fs.ErrPermission) || isTimeout(err) {
		return fmt.Errorf("%w: cannot tell whether %s is in use (%w); stop the process that has it, or choose another path",
			ErrInUse, path, err)
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
