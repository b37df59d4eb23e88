package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Read returns the content of a file, if that is plain and of a plausible size. The error
// of a missing file is fs.ErrNotExist.
func (d *Dir) Read(name string) ([]byte, error) {
	if err := d.CheckPlain(name); err != nil {
		return nil, err
	}
	return ReadPlain(d.File(name), d.maxSize(name), nil)
}

// Append adds b to a file that has so many bytes, and does not wait for the disk: after a
// crash of the host, what was added may be missing or be something else. The error says
// also that the file is not as its writer left it. It is not remembered, unlike that of
// Replace: whoever gets it replaces the file.
func (d *Dir) Append(name string, size int64, b []byte) error {
	d.begin(name)
	err := appendTo(d.File(name), size, b)
	if err != nil {
		d.mu.Lock()
		delete(d.busy, name)
		d.mu.Unlock()
		return fmt.Errorf("data-dir: %w", err)
	}
	d.end(name, nil)
	return nil
}

func appendTo(path string, size int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != size) {
		err = fmt.Errorf("%s was changed by somebody else", path)
	}
	if err == nil {
		var n int
		if n, err = f.Write(b); err == nil && n < len(b) {
			err = io.ErrShortWrite
		}
	}
	return errors.Join(err, f.Close())
}
