package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// NewResolvConf reads the file and plans what to write for the sandbox of that
// name; it changes nothing. root and file are as of ResolvConf.
func NewResolvConf(root, file, name string) (*ResolvConf, error) {
	r := &ResolvConf{Root: root, Path: path.Clean(file)}
	f, err := r.open()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		dir, err := r.at(path.Dir(r.Path), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil, r.explain(err)
		}
		defer dir.Close()
		if sameFile(dir, "/etc") && path.Base(r.Path) == "resolv.conf" {
			return nil, r.explain(errHosts)
		}
		r.Created = true
	case err != nil:
		return nil, r.explain(err)
	default:
		defer f.Close()
		if sameFile(f, "/etc/resolv.conf") {
			return nil, r.explain(errHosts)
		}
		if r.Previous, err = io.ReadAll(f); err != nil {
			return nil, r.explain(err)
		}
	}
	r.Written = render(r.Previous, name)
	return r, nil
}

// errHosts says that the container has no resolv.conf of its own.
var errHosts = errors.New("this is the host's own file: nobody but the sandbox is answered on 127.0.0.11")

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// Apply writes the file. It does nothing if that is done already, and returns
// ErrChanged if the file is not what NewResolvConf read.
//
// An existing file keeps its inode: container runtimes bind-mount it into the
// container, which would not see another one under the same name. It is
// written in one piece, with blank lines where the old text was longer, and
// then cut: whoever reads meanwhile sees the old text or the new one.
func (r *ResolvConf) Apply() error {
	f, err := r.open()
	if errors.Is(err, fs.ErrNotExist) && r.Created {
		return r.explain(r.create())
	}
	if err != nil {
		return r.explain(err)
	}
	defer f.Close()
	now, err := io.ReadAll(f)
	switch {
	case err != nil:
		return r.explain(err)
	case bytes.Equal(now, r.Written):
		return nil
	case r.Created || !bytes.Equal(now, r.Previous):
		return r.explain(ErrChanged)
	}
	return r.explain(overwrite(f, r.Written, len(now)))
}

// Restore puts back what was there, or removes what was not. It returns
// ErrChanged, and leaves the file, if it is not what Apply wrote.
func (r *ResolvConf) Restore() error {
	f, err := r.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody has removed it
	}
	if err != nil {
		return r.explain(err)
	}
	defer f.Close()
	now, err := io.ReadAll(f)
	switch {
	case err != nil:
		return r.explain(err)
	case !r.Created && bytes.Equal(now, r.Previous):
		return nil
	case !bytes.Equal(now, r.Written):
		return r.explain(ErrChanged)
	case r.Created:
		return r.explain(r.inDir(func(dir int, base string) error { return unix.Unlinkat(dir, base, 0) }))
	}
	return r.explain(overwrite(f, r.Previous, len(now)))
}

func overwrite(f *os.File, text []byte, old int) error {
	padded := append(bytes.Clone(text), bytes.Repeat([]byte{'\n'}, max(0, old-len(text)))...)
	if _, err := f.WriteAt(padded, 0); err != nil {
		return err
	}
	return errors.Join(f.Truncate(int64(len(text))), f.Sync())
}

// create makes the file appear with its content.
func (r *ResolvConf) create() error {
	return r.inDir(func(dir int, base string) error {
		temp := fmt.Sprintf(".%s.meshd-%d", base, os.Getpid())
		_ = unix.Unlinkat(dir, temp, 0) // of an earlier life with this process id
		fd, err := unix.Openat(dir, temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), temp)
		_, err = f.Write(r.Written)
		err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()) // whatever the umask is
		if err == nil {
			err = unix.Renameat2(dir, temp, dir, base, unix.RENAME_NOREPLACE)
		}
		if err != nil {
			_ = unix.Unlinkat(dir, temp, 0)
		}
		return err
	})
}

func (r *ResolvConf) inDir(do func(dir int, base string) error) error {
	d, err := r.at(path.Dir(r.Path), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer d.Close()
	return do(int(d.Fd()), path.Base(r.Path))
}

// errNotPlain says that the file cannot be a resolv.conf.
var errNotPlain = errors.New("not a plain file of at most 64 KiB")

// open opens the existing file for reading and writing.
func (r *ResolvConf) open() (*os.File, error) {
	f, err := r.at(r.Path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxResolvConf) {
		err = errNotPlain
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// at opens a path as ResolvConf.Root says.
func (r *ResolvConf) at(p string, flags uint64) (*os.File, error) {
	root, resolve := "/", uint64(unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
	if r.Root != "" {
		root, resolve = r.Root, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	rel := "." + p
	for range 8 { // EAGAIN: something on the way was renamed meanwhile
		var fd int
		if fd, err = unix.Openat2(dir, rel, how); err == nil {
			return os.NewFile(uintptr(fd), p), nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return nil, err
}

// explain names the file and says what can be done.
func (r *ResolvConf) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ELOOP) && r.Root == "":
		err = fmt.Errorf("%w: a symbolic link is on the way; name the file itself (realpath), or, in a container, use auto", err)
	case errors.Is(err, unix.ENOSYS):
		err = fmt.Errorf("%w: opening it safely needs Linux 5.6", err)
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: its directory must exist", err)
	}
	return fmt.Errorf("%s%s: %w", r.Root, r.Path, err)
}
