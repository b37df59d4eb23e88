//go:build !linux

package balancing

import (
	"log/slog"
	"time"

	"meshd/lb"
	"meshd/lb/nft"
)

// Drivers returns none: kernels other than Linux are not balanced (R5).
func Drivers(string, string, Hosting, *slog.Logger) ([]lb.Driver, error) { return nil, nil }

// former returns none either.
func former(string, string, Hosting, *slog.Logger) ([]lb.Driver, error) { return nil, nil }

// ChangedSysctls finds none: nothing was changed.
func ChangedSysctls([]nft.SysctlChange) (ours []nft.SysctlChange, others []string, err error) {
	return nil, nil, nil
}

func SwitchOn([]string, func(nft.SysctlChange)) error { return nil }

func PutBackSysctls([]nft.SysctlChange) error { return nil }

func threadTime() time.Duration { return 0 }
