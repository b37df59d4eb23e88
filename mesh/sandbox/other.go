//go:build !linux

package sandbox

import (
	"errors"
	"io"
	"net/netip"
)

// Namespace is one network namespace; only Linux has them.
type Namespace struct{}

// Open needs Linux.
func Open(Target) (*Namespace, error) { return nil, errors.ErrUnsupported }

// Identity needs Linux.
func (n *Namespace) Identity() Identity { return Identity{} }

// Path needs Linux.
func (n *Namespace) Path() string { return "" }

// Died needs Linux.
func (n *Namespace) Died() <-chan struct{} { return nil }

// Gone needs Linux.
func (n *Namespace) Gone() error { return ErrGone }

// Do needs Linux.
func (n *Namespace) Do(func() error) error { return errors.ErrUnsupported }

// Listen needs Linux.
func (n *Namespace) Listen(uint16) (*Sockets, error) { return nil, errors.ErrUnsupported }

// Addrs needs Linux.
func (n *Namespace) Addrs() ([]netip.Addr, error) { return nil, errors.ErrUnsupported }

// Redirect needs Linux.
func (n *Namespace) Redirect(uint16) error { return errors.ErrUnsupported }

// Redirected needs Linux.
func (n *Namespace) Redirected(uint16) (bool, error) { return false, errors.ErrUnsupported }

// RemoveRedirect needs Linux.
func (n *Namespace) RemoveRedirect() error { return errors.ErrUnsupported }

// Close needs Linux.
func (n *Namespace) Close() error { return nil }

// ServeKeeper needs Linux.
func ServeKeeper(io.Reader, io.Writer) int { return 1 }
