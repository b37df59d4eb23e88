package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Everything here runs in the child of a Keeper, which has become the owner of
// what it touches.

// plan reads the file and decides what to write for the sandbox of that name.
func (f *file) plan(name string) error {
	if f.Root == "" && path.Base(f.Path) != "resolv.conf" {
		return errName
	}
	text, err := f.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := f.mayCreate(); err != nil {
			return err
		}
		f.Created = true
	case err != nil:
		return err
	default:
		if previous, created, ours := recovered(text); ours {
			f.Previous, f.Created, f.Found = previous, created, text
		} else {
			f.Previous = text
		}
		if err := checkText(f.Previous); err != nil {
			return err
		}
		if len(f.Previous) > maxResolvConf {
			return errNotPlain
		}
	}
	f.Written = render(f.Previous, f.Created, name)
	return nil
}

// mayCreate refuses to create the machine's own file, and a file whose directory
// does not exist.
func (f *file) mayCreate() error {
	dir, err := f.at(path.Dir(f.Path), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	var there, etc unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &there); err != nil {
		return err
	}
	if unix.Stat("/etc", &etc) == nil && there.Dev == etc.Dev && there.Ino == etc.Ino &&
		path.Base(f.Path) == "resolv.conf" {
		return errHosts
	}
	return nil
}

var (
	// errHosts says that the container has no resolv.conf of its own.
	errHosts = errors.New("this is the host's own file: nobody but the sandbox is answered on 127.0.0.11")
	// errName bounds the harm of a typing error.
	errName = errors.New("a file of the host must be called resolv.conf")
	// errNotPlain says that the file cannot be a resolv.conf.
	errNotPlain = errors.New("not a plain file of at most 64 KiB")
	// errLinked says that a change would change something else, too.
	errLinked = errors.New("the file has another name as well (a hard link)")
)

// apply writes the file. It does nothing if that is done already.
//
// An existing file keeps its inode: container runtimes bind-mount it into the
// container, which would not see another one under the same name. It is
// written in one piece, with blank lines where the old text was longer, and then
// cut. A program that reads it meanwhile sees the old text or the new one.
func (f *file) apply() error {
	h, now, err := f.readBack()
	if errors.Is(err, fs.ErrNotExist) && f.Created {
		return f.create()
	}
	if err != nil {
		return err
	}
	defer h.Close()
	if bytes.Equal(now, f.Written) {
		return nil
	}
	found := f.Found
	if found == nil {
		found = f.Previous
	}
	if f.Created && f.Found == nil || !bytes.Equal(now, found) {
		return ErrChanged
	}
	return f.overwrite(h, f.Written, len(now))
}

// restore puts back what was there, or removes what was not.
func (f *file) restore() error {
	h, now, err := f.readBack()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was removed
	}
	if err != nil {
		return err
	}
	defer h.Close()
	switch {
	case !f.Created && bytes.Equal(now, f.Previous):
		return nil
	case !bytes.Equal(now, f.Written):
		return ErrChanged
	case f.Created:
		return f.inDir(func(dir int, base string) error { return unix.Unlinkat(dir, base, 0) })
	}
	return f.overwrite(h, f.Previous, len(now))
}

// applied reports whether the file is what apply wrote.
func (f *file) applied() (bool, error) {
	h, now, err := f.readBack()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrChanged) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return bytes.Equal(now, f.Written), h.Close()
}

// overwrite writes a resolv.conf, and nothing else, over another one.
func (f *file) overwrite(h *os.File, text []byte, old int) error {
	if err := checkText(text); err != nil {
		return err
	}
	padded := append(bytes.Clone(text), bytes.Repeat([]byte{'\n'}, max(0, old-len(text)))...)
	if _, err := h.WriteAt(padded, 0); err != nil {
		return err
	}
	return errors.Join(h.Truncate(int64(len(text))), h.Sync())
}

// create makes the file appear with its content.
func (f *file) create() error {
	return f.inDir(func(dir int, base string) error {
		temp := fmt.Sprintf(".%s.meshd-%d", base, os.Getpid())
		_ = unix.Unlinkat(dir, temp, 0) // left by an earlier process with this id
		fd, err := unix.Openat(dir, temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		h := os.NewFile(uintptr(fd), temp)
		_, err = h.Write(f.Written)
		err = errors.Join(err, h.Chmod(0o644), h.Sync(), f.remember(h), h.Close()) // whatever the umask is
		if err == nil {
			err = unix.Renameat2(dir, temp, dir, base, unix.RENAME_NOREPLACE)
		}
		if err != nil {
			_ = unix.Unlinkat(dir, temp, 0)
		}
		return err
	})
}

func (f *file) inDir(do func(dir int, base string) error) error {
	d, err := f.at(path.Dir(f.Path), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer d.Close()
	return do(int(d.Fd()), path.Base(f.Path))
}

// read reads the file for the first time, and remembers its identity.
func (f *file) read() ([]byte, error) {
	h, text, err := f.open()
	if err != nil {
		return nil, err
	}
	return text, errors.Join(f.remember(h), h.Close())
}

// readBack opens and reads the file again; it has to be the one of read, if that
// was in this boot.
func (f *file) readBack() (*os.File, []byte, error) {
	h, text, err := f.open()
	if err != nil {
		return nil, nil, err
	}
	now := *f
	if err := now.remember(h); err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	if f.File.Boot == f.boot && now.File != f.File {
		_ = h.Close()
		return nil, nil, fmt.Errorf("another file is in its place: %w", ErrChanged)
	}
	return h, text, nil
}

func (f *file) remember(h *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(h.Fd()), &st); err != nil {
		return err
	}
	f.File = fileID{Boot: f.boot, Dev: st.Dev, Ino: st.Ino}
	return nil
}

// open opens the existing file for reading and writing, if it is one that may
// be touched at all, and reads it.
func (f *file) open() (*os.File, []byte, error) {
	h, err := f.at(f.Path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w: it is immutable (lsattr shows it, chattr -i ends it)", err)
	}
	if err != nil {
		return nil, nil, err
	}
	var text []byte
	var st unix.Stat_t
	if err = unix.Fstat(int(h.Fd()), &st); err == nil {
		err = f.checkOwn(&st)
	}
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(h, maxWritten+1))
	}
	if err == nil && (len(text) > maxWritten || len(text) > maxResolvConf && !bytes.HasPrefix(text, []byte(headOurs))) {
		err = errNotPlain
	}
	if err != nil {
		_ = h.Close()
		return nil, nil, err
	}
	return h, text, nil
}

// checkOwn refuses what cannot be this file system's own resolv.conf.
func (f *file) checkOwn(st *unix.Stat_t) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxWritten:
		return errNotPlain
	case slices.Contains(f.host, hostFile{st.Dev, st.Ino}):
		return errHosts
	case int(st.Uid) != f.owner:
		return fmt.Errorf("the file is user %d's, and only a file of user %d, who is root there, is touched", st.Uid, f.owner)
	case st.Nlink > 1:
		return errLinked
	}
	return nil
}

// at opens a path as ResolvConf.Root says.
func (f *file) at(p string, flags uint64) (*os.File, error) {
	resolve := uint64(unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS)
	if f.Root != "" {
		resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	}
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	rel := "." + p
	var err error
	for range 8 { // EAGAIN: something on the way was renamed meanwhile
		var fd int
		if fd, err = unix.Openat2(f.root, rel, how); err == nil {
			return os.NewFile(uintptr(fd), p), nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return nil, err
}

// explain names the file and says what can be done.
func (f *file) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ELOOP) && f.Root == "":
		err = fmt.Errorf("%w: a symbolic link is on the way; name the file itself (realpath), or, in a container, use auto",
			err)
	case errors.Is(err, unix.ENOSYS):
		err = fmt.Errorf("%w: opening it safely needs Linux 5.6", err)
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: its directory must exist", err)
	case errors.Is(err, unix.EROFS):
		err = fmt.Errorf("%w: with the systemd unit, add its directory to ReadWritePaths= (systemctl edit meshd), make "+
			"it, and restart meshd", err)
	case errors.Is(err, unix.EACCES):
		err = fmt.Errorf("%w: root of that file system, user %d of the host, may not read and write it", err, f.owner)
	}
	return fmt.Errorf("%s%s: %w", f.Root, f.Path, err)
}
