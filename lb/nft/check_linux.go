package nft

import (
	"context"
	"fmt"

	"meshd/lb"
)

// Check implements lb.Driver. Its cost grows with the number of different
// numbers of backends, not with services.
func (d *Driver) Check(context.Context) ([]lb.Finding, error) {
	if d.base == nil {
		return nil, fmt.Errorf("%w: not set up", lb.ErrDrift)
	}
	found, err := d.base.Check()
	if err != nil {
		return found, err
	}
	classes := make([]string, 0, len(d.classes))
	for cl := range d.classes {
		classes = append(classes, cl.name())
	}
	more, err := d.layout.book.Check(d.conn, classes...)
	return append(found, more...), err
}

// Number implements lb.Numbered.
func (d *Driver) Number(context.Context) (uint64, error) { return d.base.Number() }

// Untouched implements lb.Watchful.
func (d *Driver) Untouched(context.Context) bool { return d.base != nil && d.conn.Untouched() }
