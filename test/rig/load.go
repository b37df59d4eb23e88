//go:build linux

package rig

import (
	"os"
	"strings"
)

// LoadAverage returns that of the machine over the last minute, as the kernel writes
// it, so that a figure from a busy machine is known as such; "unknown" without one.
func LoadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
