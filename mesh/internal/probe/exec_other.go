//go:build !linux

package probe

import (
	"context"

	"meshd/mesh/health"
)

// runExec needs process groups and signals as Linux has them.
func runExec(context.Context, *health.Check, Target) health.Result {
	return unknown("programs are run on Linux only")
}
