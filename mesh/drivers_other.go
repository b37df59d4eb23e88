//go:build !linux

package mesh

import (
	"log/slog"

	"meshd/lb"
)

// drivers returns none: kernels other than Linux are not balanced (R5).
func drivers(string, string, hosting, *slog.Logger) ([]lb.Driver, error) { return nil, nil }
