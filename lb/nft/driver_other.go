//go:build !linux

package nft

import (
	"errors"
	"fmt"

	"meshd/lb"
)

// Driver is the stand-in for systems without nftables: Probe always fails.
type Driver struct{ lb.Unsupported }

// New returns a driver that refuses everything.
func New(Config) (*Driver, error) {
	why := fmt.Errorf("%w: nftables needs Linux: %w", lb.ErrUnsupported, errors.ErrUnsupported)
	return &Driver{lb.Unsupported{Driver: "nft", Why: why}}, nil
}
