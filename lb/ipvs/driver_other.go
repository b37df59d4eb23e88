//go:build !linux

package ipvs

import (
	"errors"
	"fmt"

	"meshd/lb"
)

// Driver is the stand-in for systems without IPVS: Probe always fails.
type Driver struct{ lb.Unsupported }

// New returns a driver that refuses everything.
func New(Config) (*Driver, error) {
	why := fmt.Errorf("%w: IPVS needs Linux: %w", lb.ErrUnsupported, errors.ErrUnsupported)
	return &Driver{lb.Unsupported{Driver: "ipvs", Why: why}}, nil
}
