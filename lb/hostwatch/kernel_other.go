//go:build !linux

package hostwatch

import (
	"net/netip"

	"meshd/lb/hostfacts"
)

// still is a host whose kernel is not asked, as nothing is balanced there.
type still struct{ closed chan struct{} }

// Open returns a kernel of which nothing is known, and that never changes.
func Open(string, []netip.Prefix) (Kernel, error) { return still{make(chan struct{})}, nil }

func (s still) Read() (hostfacts.Facts, error) { return hostfacts.Facts{}, nil }
func (s still) Wait() (bool, error)            { <-s.closed; return false, nil }
func (s still) Close() error                   { close(s.closed); return nil }
