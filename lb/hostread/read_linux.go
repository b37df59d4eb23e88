package hostread

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// readAttempts bounds how often a list is read that changes meanwhile.
const readAttempts = 3

// reader reads the network namespace in which it was opened.
type reader struct {
	// Sockets; nil: it could not be opened.

	route   *conn         // devices, addresses, neighbours
	filter  *conn         // chains and rules
	sets    *conn         // sets, in the middle of a list of rules
	changes *netlink.Conn // announces changes of devices and addresses
	failed  error         // why route is nil

	inside bool // the namespace is that of a container

	// The filters of nftables that were read last.

	generation uint32            // the number of the ruleset; 0: not known
	chains     []hostcheck.Chain // the result; not changed once it was handed out
	unreadable string            // why there are none; "" if they could be read
}

// Open returns a reader of the network namespace of the process, which the caller
// closes. What it cannot open is named in the facts.
func Open() Reader {
	r := open()
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups}); err == nil {
		r.changes = c
	}
	return r
}

// ReadContainer reads the network namespace of the calling thread as that of a
// container: with the filters of what its own processes send, and within lower bounds.
func ReadContainer(want Want) *hostcheck.Facts {
	r := open()
	defer r.Close()
	r.inside = true
	return r.Read(want)
}

func open() *reader {
	r := &reader{}
	if r.route, r.failed = dial(unix.NETLINK_ROUTE); r.failed != nil {
		r.route = nil
	} else {
		r.route.lenient = true // devices come and go all the time, and the next look sees them
	}
	var err, other error
	r.filter, err = dial(unix.NETLINK_NETFILTER)
	if r.sets, other = dial(unix.NETLINK_NETFILTER); err != nil || other != nil {
		_ = errors.Join(r.filter.close(), r.sets.close())
		r.filter, r.sets = nil, nil
	}
	return r
}

// Moved implements Reader.
func (r *reader) Changed() bool {
	changed := false
	for range maxPending {
		if r.changes == nil || r.changes.SetReadDeadline(time.Now().Add(time.Millisecond)) != nil {
			break
		}
		if _, err := r.changes.Receive(); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		changed = true // also if there was more than the socket holds
	}
	return changed || r.filter != nil && (&filters{conn: r.filter}).generation() != r.generation
}

// maxPending bounds how many messages are taken from a socket at once.
const maxPending = 64

// Close implements Reader.
func (r *reader) Close() error {
	errs := []error{r.route.close(), r.filter.close(), r.sets.close()}
	if r.changes != nil {
		errs = append(errs, r.changes.Close())
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
		r.routeDevices(l, want.Destinations, f)
	}
	r.readFilters(l, f)
	f.IPVS = ipvs()
	f.Schedulers = schedulers("/", want.Schedulers)
	return f
}

// retryInterrupted calls read again, a few times, if others wrote meanwhile.
func retryInterrupted[T any](read func() (T, error)) (got T, err error) {
	for range readAttempts {
		if got, err = read(); !errors.Is(err, errInterrupted) {
			break
		}
	}
	return got, err
}

// readFilters reads the filters. Those of nftables are kept from the last time unless
// somebody has written to them.
func (r *reader) readFilters(l *links, f *hostcheck.Facts) {
	x := &filters{conn: r.filter, sets: r.sets, names: l.names, inside: r.inside}
	if r.filter != nil { // a kernel without filters drops nothing
		r.readNft(x)
	}
	f.Chains = r.chains
	if r.unreadable != "" {
		f.Unreadable = append(f.Unreadable, r.unreadable)
	}
	x.resetBounds()
	own, err := retryInterrupted(x.legacyChains)
	switch {
	case errors.Is(err, errInterrupted), errors.Is(err, os.ErrPermission) && r.unreadable != "":
	case err != nil:
		f.Unreadable = append(f.Unreadable, "packet filters of iptables: "+err.Error())
	default:
		f.Chains = append(slices.Clip(f.Chains), own...)
	}
}

// readNft reads the filters of nftables if they have changed. Those that are too many,
// or cannot be read, are not tried again before the next change either.
func (r *reader) readNft(x *filters) {
	now := x.generation()
	if now != 0 && now == r.generation {
		return
	}
	all, err := retryInterrupted(x.read)
	switch {
	case errors.Is(err, errInterrupted): // the next look sees more
		return
	case errors.Is(err, os.ErrPermission):
		r.unreadable = "packet filters, since that takes CAP_NET_ADMIN: run it as root"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPROTONOSUPPORT):
		r.unreadable = "" // no nftables here
	case err != nil:
		r.unreadable = "packet filters: " + err.Error()
	default:
		r.unreadable = ""
	}
	r.chains, r.generation = all, now
}
