package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is one network namespace, held open. Its methods are safe for
// concurrent use.
type Namespace struct {
	target Target
	id     Identity
	file   *os.File

	pidfd *os.File      // nil without Target.PID, or on kernels without pidfd_open
	died  chan struct{} // closed when the process has ended; nil without pidfd
	done  sync.WaitGroup

	redirect func(port uint16) error // Redirect; replaced in tests
}

// nsGetType is the request NS_GET_NSTYPE of ioctl_ns(2).
const nsGetType = 0xb703

// Open finds the namespace and holds it until Close. Entering it needs
// CAP_SYS_ADMIN: without, the error is fs.ErrPermission.
func Open(t Target) (*Namespace, error) {
	path := t.Path
	if t.PID > 0 {
		path = fmt.Sprintf("/proc/%d/ns/net", t.PID)
	}
	n := &Namespace{target: t}
	n.redirect = n.Redirect
	err := n.open(path)
	if err == nil {
		err = n.Gone() // the process may have ended meanwhile, and its id be another's
	}
	if err != nil {
		_ = n.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

func (n *Namespace) open(path string) (err error) {
	if n.target.PID > 0 {
		if err := n.openProcess(); err != nil {
			return err
		}
	}
	if n.file, err = openNS(path); err != nil {
		return err
	}
	return n.identify()
}

// openProcess identifies the process before its namespace is looked up, and watches
// for its end.
func (n *Namespace) openProcess() (err error) {
	if n.id.Start, err = startTime(n.target.PID); err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(n.target.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return fs.ErrNotExist
	}
	if err != nil {
		return nil // Gone finds out as well, only later
	}
	n.pidfd, n.died = os.NewFile(uintptr(fd), "pidfd"), make(chan struct{})
	raw, err := n.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	n.done.Go(func() {
		ended := false
		_ = raw.Read(func(fd uintptr) bool {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			k, err := unix.Poll(p, 0)
			ended = err == nil && k > 0
			return ended
		}) // an error says that Close came first
		if ended {
			close(n.died)
		}
	})
	return nil
}

// openNS opens a namespace file and nothing else. An O_PATH handle comes first,
// because opening a device or a pipe may have effects.
func openNS(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return nil, err
	}
	if st.Type != unix.NSFS_MAGIC {
		return nil, ErrNotNamespace
	}
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	if kind, err := unix.IoctlRetInt(int(f.Fd()), nsGetType); err == nil && kind != unix.CLONE_NEWNET {
		return nil, errors.Join(ErrNotNamespace, f.Close())
	}
	return f, nil
}

// identify fills the identity from inside the namespace.
func (n *Namespace) identify() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(n.file.Fd()), &st); err != nil {
		return err
	}
	n.id.Dev, n.id.Ino = st.Dev, st.Ino
	dev, ino, err := inode(threadNS)
	if err == nil && dev == n.id.Dev && ino == n.id.Ino {
		return ErrOwn
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	n.id.Boot = strings.TrimSpace(string(boot))
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		n.id.Cookie, _ = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE) // 0 where there are none
		return nil
	})
}

// inode returns the numbers that distinguish living namespaces.
func inode(path string) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, err
	}
	return st.Dev, st.Ino, nil
}

// startTime reads when a process started: field 22 of its stat. Field 2, the name
// in parentheses, may hold anything.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			err = fs.ErrNotExist
		}
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields after the name", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// Identity returns what tells the namespace from others.
func (n *Namespace) Identity() Identity { return n.id }

// Path names the namespace to others in this process, such as the drivers of
// package lb, until Close.
func (n *Namespace) Path() string { return "/proc/self/fd/" + strconv.Itoa(int(n.file.Fd())) }

// Died is closed when the process of Target.PID has ended. It is nil, so that
// it never fires, if there is none; ask Gone from time to time as well.
func (n *Namespace) Died() <-chan struct{} { return n.died }

// Gone returns an error that wraps ErrGone if the target is no longer this
// namespace: the path was removed or belongs to another namespace, or the process
// has ended, is another one, or has left the namespace. It is cheap.
func (n *Namespace) Gone() error {
	path := n.target.Path
	if pid := n.target.PID; pid > 0 {
		start, err := startTime(pid)
		if err != nil || start != n.id.Start {
			return fmt.Errorf("%w: process %d has ended", ErrGone, pid)
		}
		path = fmt.Sprintf("/proc/%d/ns/net", pid)
	}
	dev, ino, err := inode(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: %s does not exist any more", ErrGone, path)
	case err != nil:
		return nil // it could not be determined
	case dev != n.id.Dev || ino != n.id.Ino:
		return fmt.Errorf("%w: %s is another one now", ErrGone, path)
	}
	return nil
}

// threadNS is the namespace of the calling thread. /proc/self would be that of the
// first thread, which may be in another one.
const threadNS = "/proc/thread-self/ns/net"

// Do runs f on a thread inside the namespace. Sockets that f itself opens
// belong to the namespace; goroutines that it starts do not run there.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- n.inside(f) }()
	return <-done
}

// inside takes the thread to the namespace and back. A thread that cannot go
// back ends with its goroutine, or, if it is the first, is never used again.
func (n *Namespace) inside(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(threadNS)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("find the way back: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	defer func() {
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// routes opens a netlink handle inside; the caller closes it.
func (n *Namespace) routes() (*netlink.Handle, error) {
	return netlink.NewHandleAt(netns.NsHandle(n.file.Fd()), unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
}

// Close releases the namespace.
func (n *Namespace) Close() error {
	var errs []error
	for _, f := range []*os.File{n.pidfd, n.file} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	n.done.Wait()
	return errors.Join(errs...)
}
