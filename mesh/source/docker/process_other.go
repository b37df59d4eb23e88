//go:build !linux

package docker

import (
	"errors"
	"time"
)

// OpenProcess watches a process of this host by its number. Here it cannot.
func OpenProcess(int, time.Time) (Process, error) { return nil, errors.ErrUnsupported }
