//go:build !linux

package balancing

import (
	"log/slog"
	"time"

	"meshd/lb"
	"meshd/lb/sysctl"
)

// Drivers returns none: kernels other than Linux are not balanced (R5).
func Drivers(string, string, Hosting, *slog.Logger) ([]lb.Driver, error) { return nil, nil }

// former returns none either.
func former(string, string, Hosting, *slog.Logger) ([]lb.Driver, error) { return nil, nil }

// ChangedSysctls finds none: nothing was changed.
func ChangedSysctls([]sysctl.Change) (ours []sysctl.Change, others []string, err error) {
	return nil, nil, nil
}

// SwitchOn changes nothing.
func SwitchOn([]string, func(sysctl.Change)) error { return nil }

// PutBackSysctls has nothing to put back.
func PutBackSysctls([]sysctl.Change) error { return nil }

func threadTime() time.Duration { return 0 }
