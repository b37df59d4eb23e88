//go:build !linux

package balancing

import (
	"log/slog"
	"time"

	"meshd/lb"
)

// Drivers returns none: kernels other than Linux are not balanced (R5).
func Drivers(string, string, Hosting, *slog.Logger) ([]lb.Driver, error) { return nil, nil }

// former returns none either.
func former(string, string, Hosting, *slog.Logger) ([]lb.Driver, error) { return nil, nil }

func threadTime() time.Duration { return 0 }
