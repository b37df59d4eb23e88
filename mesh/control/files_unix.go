//go:build unix

package control

import (
	"math"
	"syscall"
)

// maxFiles returns how many files the process may open.
func maxFiles() int {
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil {
		return math.MaxInt
	}
	return int(min(files.Cur, math.MaxInt))
}
