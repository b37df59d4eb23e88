package lb

import "context"

// Unsupported is the stand-in for a driver on systems that cannot have it:
// Probe, and everything else that has an error to return, fails with Why, which
// wraps ErrUnsupported. Safe for concurrent use.
type Unsupported struct {
	Driver string // its name
	Why    error
}

var _ Driver = (*Unsupported)(nil)

// Name implements Driver.
func (u *Unsupported) Name() string { return u.Driver }

// Probe implements Driver.
func (u *Unsupported) Probe(context.Context) error { return u.Why }

// Setup implements Driver.
func (u *Unsupported) Setup(context.Context) error { return u.Why }

// Apply implements Driver.
func (u *Unsupported) Apply(_ context.Context, ops []Op) []error {
	errs := make([]error, len(ops))
	for i := range errs {
		errs[i] = u.Why
	}
	return errs
}

// Snapshot implements Driver.
func (u *Unsupported) Snapshot(context.Context) (*Table, error) { return nil, u.Why }

// Check implements Driver.
func (u *Unsupported) Check(context.Context) ([]Finding, error) { return nil, u.Why }

// Usage implements Driver.
func (u *Unsupported) Usage(context.Context, []Key) (map[Key]Usage, error) { return nil, u.Why }

// Remnants implements Driver. It returns nothing, since a system cannot have kept
// what it does not support.
func (u *Unsupported) Remnants(context.Context) ([]Remnant, error) { return nil, nil }

// Teardown implements Driver.
func (u *Unsupported) Teardown(context.Context) error { return nil }

// Close implements Driver.
func (u *Unsupported) Close() error { return nil }
