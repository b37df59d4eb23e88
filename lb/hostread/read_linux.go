package hostread

import (
	"errors"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// receiveBuffer is for answers of the kernel that are long.
const receiveBuffer = 4 << 20

// reader reads the host of the process.
type reader struct {
	route, filter *netlink.Conn // nil: could not be opened
	changes       *netlink.Conn // tells of devices and addresses; nil: likewise
	failed        error

	generation uint32 // of the ruleset of which chains are; 0: not known
	chains     []hostcheck.Chain
}

// Open returns a reader of the network namespace of the process. What it cannot
// open is named in the facts.
func Open() Reader {
	r := &reader{}
	var err error
	if r.route, err = netlink.Dial(unix.NETLINK_ROUTE, nil); err != nil {
		r.route, r.failed = nil, err
	}
	if r.filter, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
		r.filter = nil
	} else {
		_ = r.filter.SetReadBuffer(receiveBuffer)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if r.changes, err = netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups}); err != nil {
		r.changes = nil
	}
	return r
}

// Moved implements Reader.
func (r *reader) Moved() bool {
	moved := false
	for range maxTold {
		if r.changes == nil || r.changes.SetReadDeadline(time.Now().Add(time.Millisecond)) != nil {
			break
		}
		if _, err := r.changes.Receive(); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		moved = true // also if more was told than fits: it is read, then
	}
	return moved || r.filter != nil && (&filters{conn: r.filter}).generation() != r.generation
}

// maxTold bounds how much of what the kernel told is taken at once.
const maxTold = 64

// Close implements Reader.
func (r *reader) Close() error {
	var errs []error
	for _, c := range []*netlink.Conn{r.route, r.filter, r.changes} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// Read implements Reader.
func (r *reader) Read(want Want) *hostcheck.Facts {
	f := &hostcheck.Facts{}
	l := &links{}
	if r.route == nil {
		f.Unreadable = append(f.Unreadable, "devices and addresses: "+r.failed.Error())
	} else if got, err := r.devices(); err != nil {
		f.Unreadable = append(f.Unreadable, err.Error())
	} else {
		l = got
	}
	f.Devices = l.all
	settings(f)
	if r.route != nil && l.at != nil {
		if err := r.neighbours(l, want.Tasks, f); err != nil {
			f.Unreadable = append(f.Unreadable, err.Error())
		}
		r.ways(l, want.To, f)
	}
	r.readFilters(l, f)
	f.IPVS = ipvs()
	f.Schedulers = schedulers(want.Schedulers)
	return f
}

// readFilters reads the filters, unless nobody has written to them.
func (r *reader) readFilters(l *links, f *hostcheck.Facts) {
	if r.filter == nil {
		return // a kernel without them drops nothing
	}
	x := &filters{conn: r.filter, names: l.names}
	now := x.generation()
	if now == 0 || now != r.generation {
		all, err := x.read()
		switch {
		case errors.Is(err, os.ErrPermission):
			f.Unreadable = append(f.Unreadable, "packet filters, since that takes CAP_NET_ADMIN: run it as root")
			return
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPROTONOSUPPORT):
			return // no nftables here
		case err != nil:
			f.Unreadable = append(f.Unreadable, "packet filters: "+err.Error())
			return
		}
		r.chains, r.generation = all, now
	}
	f.Chains = r.chains
}
