package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ReadPlain reads a plain file of at most limit bytes. Anything else is refused at
// once: reading a pipe or a device may never end. All checks, the caller's first (nil:
// none), are made of the open file, so that neither a symbolic link nor a file that is
// replaced in between evades them.
func ReadPlain(path string, limit int64, check func(fs.FileInfo) error) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(info); err != nil {
			return nil, err
		}
	}
	switch {
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory; give a file in it", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a plain file; give one, not a pipe or a device", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes; it is not what it should be", path, limit)
	}
	return b, err
}

// WriteFile replaces a file atomically: temporary file, fsync, rename, fsync of the
// directory. On an error the former file is left as it was.
func WriteFile(path string, b []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDirectory(path)
}

// syncDirectory returns when the disk has the name of a file.
func syncDirectory(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
