//go:build !linux

package hostwatch

import (
	"net/netip"

	"meshd/lb/hostfacts"
)

// idleKernel is a host that is not read, since nothing is balanced there.
type idleKernel struct{ closed chan struct{} }

// Open returns a kernel of which nothing is known, and that never changes.
func Open(string, []netip.Prefix) (Kernel, error) { return idleKernel{make(chan struct{})}, nil }

func (s idleKernel) Read() (hostfacts.Facts, error) { return hostfacts.Facts{}, nil }
func (s idleKernel) Wait() (bool, error)            { <-s.closed; return false, nil }
func (s idleKernel) Close() error                   { close(s.closed); return nil }
