package conntrack

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"meshd/lb/nftconn"
)

// Table is the kernel's table of connections. It is an interface because
// tests count how often it is read: a table may have a million entries.
type Table interface {
	// flows is as of asker.
	Flows(family byte, to netip.Addr, each func(f *Flow, name func() Name)) error
	// forget is as of asker.
	Forget(family byte, name Name) error
}

// filteredPasses bounds the passes that ask for the connections to one address.
// The kernel goes through its whole table for each, without a word of what is
// not asked for: beside 250,000 connections 65 ms for each address, against
// 0.7 s for all (BenchmarkConntrack). Of IPv6 everything is read: the kernel's
// comparison of IPv6 addresses in a filter is inverted, at least from 5.8 to
// 6.18, so that it tells of all but those that were asked for.
const filteredPasses = 4

// survey calls add with every connection of one family to some addresses, and
// perhaps with others, and returns what add made of them, one part for each
// pass. Without addresses it reads nothing. After an error the parts are what
// could be read.
func survey[T any](c Table, family int, vips map[netip.Addr]struct{},
	add func(part *T, f *Flow, name func() Name),
) ([]T, error) {
	if len(vips) == 0 {
		return nil, nil
	}
	if nftconn.Families[family].Proto == unix.NFPROTO_IPV4 && len(vips) <= filteredPasses {
		parts, err := passes(c, family, slices.SortedFunc(maps.Keys(vips), netip.Addr.Compare), add)
		if !errors.Is(err, errUnfiltered) {
			return parts, err
		}
	}
	return passes(c, family, []netip.Addr{{}}, add)
}

// passes reads the connections to each address. The zero Addr stands for all.
func passes[T any](c Table, family int, to []netip.Addr,
	add func(part *T, f *Flow, name func() Name),
) (parts []T, err error) {
	var errs []error
	for _, a := range to {
		var part T
		err := undisturbed(func() error {
			part = *new(T)
			return c.Flows(nftconn.Families[family].Proto, a, func(f *Flow, name func() Name) { add(&part, f, name) })
		})
		if errors.Is(err, errUnfiltered) {
			return nil, err // the next one is no better
		}
		parts, errs = append(parts, part), append(errs, err)
	}
	return parts, errors.Join(errs...)
}

// undisturbed reads a table again if it changed meanwhile, so that nothing is
// missed; not for ever.
func undisturbed(read func() error) (err error) {
	for range 5 {
		if err = read(); !errors.Is(err, nftconn.ErrInterrupted) {
			break
		}
	}
	return err
}
