//go:build unix

package store

import (
	"io/fs"
	"syscall"
)

// OwnerOf returns the user id of a file's owner; ok is false where there is none.
func OwnerOf(info fs.FileInfo) (uid uint32, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return s.Uid, true
}
