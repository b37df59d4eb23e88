//go:build !linux

package ipvs

import (
	"context"
	"errors"
	"fmt"

	"meshd/lb"
)

// Driver is the stand-in for systems without IPVS: Probe always fails.
type Driver struct{}

var errOther = fmt.Errorf("%w: IPVS needs Linux: %w", lb.ErrUnsupported, errors.ErrUnsupported)

// New returns a driver that refuses everything.
func New(Config) (*Driver, error) { return &Driver{}, nil }

// Name implements lb.Driver.
func (*Driver) Name() string { return "ipvs" }

// Probe implements lb.Driver.
func (*Driver) Probe(context.Context) error { return errOther }

// Setup implements lb.Driver.
func (*Driver) Setup(context.Context) error { return errOther }

// Apply implements lb.Driver.
func (*Driver) Apply(_ context.Context, ops []lb.Op) []error {
	errs := make([]error, len(ops))
	for i := range errs {
		errs[i] = errOther
	}
	return errs
}

// Snapshot implements lb.Driver.
func (*Driver) Snapshot(context.Context) (*lb.Table, error) { return nil, errOther }

// Check implements lb.Driver.
func (*Driver) Check(context.Context) error { return errOther }

// Usage implements lb.Driver.
func (*Driver) Usage(context.Context, []lb.Key) (map[lb.Key]lb.Usage, error) { return nil, errOther }

// Teardown implements lb.Driver.
func (*Driver) Teardown(context.Context) error { return errOther }

// Close implements lb.Driver.
func (*Driver) Close() error { return nil }
