//go:build !linux

package hostmend

import (
	"errors"
	"net/netip"
)

var errNotHere = errors.New("not on this system")

// Hairpin fails: there are no bridges.
func Hairpin(string) (Port, error) { return Port{}, errNotHere }

// HairpinOn reports false.
func HairpinOn(Port) (bool, error) { return false, nil }

// HairpinOff does nothing.
func HairpinOff(Port) error { return nil }

// ResolveAddress does nothing.
func ResolveAddress(netip.Addr) error { return nil }
