package mesh

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// readPlain reads a plain file of at most limit bytes. Anything else is refused
// at once: a pipe would be waited for without an end, a device might have none.
// All checks, those of the caller first (nil: none), are of the file that is
// read, so that a symbolic link, or a swap in between, leads around none of them.
func readPlain(path string, limit int64, check func(fs.FileInfo) error) ([]byte, error) {
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
