//go:build !linux

package mesh

import (
	"log/slog"
	"time"

	"meshd/lb"
	"meshd/lb/nft"
)

// drivers returns none: kernels other than Linux are not balanced (R5).
func drivers(string, string, hosting, *slog.Logger) ([]lb.Driver, error) { return nil, nil }

// former returns none either.
func former(string, string, hosting, *slog.Logger) ([]lb.Driver, error) { return nil, nil }

// changedSysctls finds none: nothing was changed.
func changedSysctls([]nft.SysctlChange) (ours []nft.SysctlChange, others []string, err error) {
	return nil, nil, nil
}

func switchOn([]string, func(nft.SysctlChange)) error { return nil }

func putBackSysctls([]nft.SysctlChange) error { return nil }

func threadTime() time.Duration { return 0 }
