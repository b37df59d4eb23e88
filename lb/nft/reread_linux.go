package nft

import (
	"net/netip"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// maxPasses bounds how often the maps are read for one reading.
const maxPasses = 5

// read reads everything. It may be called again.
//
// A map that grew a moment ago is still being spread over its larger hash
// table, and the kernel, which tells it in pieces by position, then leaves
// elements out; the ruleset's number says nothing of that. So what lacks
// something is read again, and what any pass told is there.
func (r *reader) read() error {
	r.entries = make(map[lb.Key]*entry, len(r.d.entries))
	r.classes = map[class]bool{}
	return r.passes(r.pass)
}

func (r *reader) passes(pass func() error) error {
	count := 0
	for range maxPasses {
		r.unknown = map[*nftables.Set][]nftables.SetElement{}
		if err := pass(); err != nil {
			return err
		}
		before := count
		if count = r.count(); count == before || !r.lacks() {
			return nil
		}
	}
	return nil
}

// pass reads every map once.
func (r *reader) pass() error {
	for i := range r.d.layout.maps {
		m := &r.d.layout.maps[i]
		for _, err := range []error{
			r.each(m.svc, func(e *nftconn.Element) error { return r.service(e, i, false) }),
			r.each(m.all, func(e *nftconn.Element) error { return r.service(e, i, true) }),
			r.each(m.eps, func(e *nftconn.Element) error { return r.slot(e, i, false) }),
			r.each(m.allepsSet, func(e *nftconn.Element) error { return r.slot(e, i, true) }),
			r.each(m.class, func(e *nftconn.Element) error { return r.class(e, i) }),
		} {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// count counts the elements that were read.
func (r *reader) count() int {
	n := len(r.classes)
	for _, e := range r.entries {
		if e.there {
			n++
		}
		n += filled(e.slots)
		for _, b := range e.settings.parked {
			if b.Addr.IsValid() {
				n++
			}
		}
	}
	return n
}

func filled(slots []netip.AddrPort) (n int) {
	for _, a := range slots {
		if a.IsValid() {
			n++
		}
	}
	return n
}

// lacks reports whether something was not told that the driver has written, or
// that belongs to what was told.
func (r *reader) lacks() bool {
	for k, known := range r.d.entries {
		if e := r.entries[k]; known.there && (e == nil || e.lacks(known)) {
			return true
		}
	}
	for _, e := range r.entries {
		if !e.there || filled(e.slots) < max(len(e.slots), int(e.class.slots)) || e.class.slots > 0 && !r.classes[e.class] {
			return true
		}
	}
	return false
}

// lacks reports whether an entry that was read has less than the known one.
func (e *entry) lacks(known *entry) bool {
	if !e.there || filled(e.slots) < filled(known.slots) || len(e.settings.parked) < len(known.settings.parked) {
		return true
	}
	for _, b := range e.settings.parked {
		if !b.Addr.IsValid() {
			return true
		}
	}
	return false
}
