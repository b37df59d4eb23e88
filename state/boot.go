package state

import (
	"fmt"
	"strconv"
	"time"
)

// This file owns the ids of lives of processes.

// NewBoot returns the id of a life of a process that started at that wall time,
// since 1970: of two, the lower one started earlier, as far as clocks tell (S8).
// random tells those apart that started in the same millisecond.
func NewBoot(start time.Duration, random uint64) uint64 {
	return uint64(start.Milliseconds())<<16 | random&0xffff
}

// FormatBoot writes a boot id as people and the API see it: 16 hex digits.
func FormatBoot(boot uint64) string { return fmt.Sprintf("%016x", boot) }

// ParseBoot reads what FormatBoot wrote. The error is a *ValueError.
func ParseBoot(s string) (uint64, error) {
	boot, err := strconv.ParseUint(s, 16, 64)
	if err != nil || s != FormatBoot(boot) {
		return 0, wrong("meshctl status shows this node's", "%q is not a boot id of 16 hex digits", s)
	}
	return boot, nil
}
