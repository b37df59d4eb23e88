//go:build unix

package store

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// writable returns why nothing new can be written in a directory, or nil. A file that
// is open for writing stays so when its file system is mounted read-only beneath it,
// but no other file of the directory can be replaced then.
func writable(path string) error {
	if err := unix.Access(path, unix.W_OK); err != nil {
		return fmt.Errorf("the directory cannot be written to: %w; mount it read-write, or mend its permissions", err)
	}
	return nil
}
