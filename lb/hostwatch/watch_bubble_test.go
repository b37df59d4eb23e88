package hostwatch_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb/hostfacts"
	"meshd/lb/hostwatch"
)

// fakeKernel is a host that a test changes.
type fakeKernel struct {
	mu     sync.Mutex // guards what follows
	facts  hostfacts.Facts
	err    error
	reads  int
	slow   time.Duration
	events chan error // what Wait returns
	closed chan struct{}
}

func newKernel(facts hostfacts.Facts) *fakeKernel {
	return &fakeKernel{facts: facts, events: make(chan error, 1000), closed: make(chan struct{})}
}

func (k *fakeKernel) Read() (hostfacts.Facts, error) {
	k.mu.Lock()
	slow := k.slow
	k.mu.Unlock()
	timer := time.NewTimer(slow)
	<-timer.C
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads++
	return k.facts, k.err
}

func (k *fakeKernel) Wait() (bool, error) {
	select {
	case err := <-k.events:
		return errors.Is(err, errOurs), notOurs(err)
	case <-k.closed:
		return false, errors.New("closed")
	}
}

// errOurs is an event that tells the end of something of ours.
var errOurs = errors.New("ours")

func notOurs(err error) error {
	if errors.Is(err, errOurs) {
		return nil
	}
	return err
}

func (k *fakeKernel) Close() error { close(k.closed); return nil }

// become changes the host, and tells of it if asked to.
func (k *fakeKernel) become(facts hostfacts.Facts, err error, tell ...error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.facts, k.err = facts, err
	for _, e := range tell {
		k.events <- e
	}
}

func (k *fakeKernel) taken() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reads
}

func at(addr string) hostfacts.Facts {
	return hostfacts.Facts{Addresses: []hostfacts.Address{{Addr: netip.MustParseAddr(addr), Device: "eth0"}}}
}

func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

// watch returns a watcher of a kernel that runs for the length of a test.
func watch(t *testing.T, k *fakeKernel) *hostwatch.Watcher {
	w := hostwatch.New(func() (hostwatch.Kernel, error) { return k, nil }, slog.New(slog.DiscardHandler))
	run(t, w)
	return w
}

func holds(t *testing.T, w *hostwatch.Watcher, addr string) {
	t.Helper()
	if f, _ := w.Facts(); len(f.Addresses) != 1 || f.Addresses[0].Addr.String() != addr {
		t.Errorf("the facts are %+v, want %s", f, addr)
	}
}

// A change that the kernel tells is known soon, one that it does not tell, or
// cannot, a little later; what cannot be read stays as it was.
func TestWatcherFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(at("10.0.0.1"))
		w := watch(t, k)
		holds(t, w, "10.0.0.1")
		pass(time.Second)
		_, changed := w.Facts()
		k.become(at("10.0.0.2"), nil, nil)
		pass(100 * time.Millisecond)
		holds(t, w, "10.0.0.2")
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
		k.become(at("10.0.0.3"), nil, errors.New("no buffer space available"))
		pass(1500 * time.Millisecond)
		holds(t, w, "10.0.0.3")
		k.become(at("10.0.0.4"), nil)
		pass(31 * time.Second)
		holds(t, w, "10.0.0.4")
		k.become(hostfacts.Facts{}, errors.New("interrupted"), nil)
		pass(time.Second)
		holds(t, w, "10.0.0.4")
		if c := w.Counters(); c.Missed != 1 || c.Errors != 1 {
			t.Errorf("counted %+v", c)
		}
	})
}

// A storm of changes is read as often as reading is cheap.
func TestWatcherIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(at("10.0.0.1"))
		w := watch(t, k)
		pass(time.Second)
		k.mu.Lock()
		k.slow = 300 * time.Millisecond // a router's table
		k.mu.Unlock()
		before := k.taken()
		for range 600 {
			k.become(at("10.0.0.2"), nil, nil)
			pass(50 * time.Millisecond)
		}
		if n := k.taken() - before; n > 12 {
			t.Errorf("%d readings of 0.3 s in 30 s", n)
		}
		holds(t, w, "10.0.0.2")
	})
}

// Equal facts are told once; what the owner requires is part of them; a host
// that cannot be asked has facts that say so.
func TestWatcherTellsChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(at("10.0.0.1"))
		w := watch(t, k)
		pass(time.Second)
		point := hostfacts.Point{Addr: netip.MustParseAddr("10.9.0.1"), What: "node b"}
		for range 5 {
			w.Require(nil, []hostfacts.Point{point})
			k.become(at("10.0.0.1"), nil, nil)
			pass(time.Second)
		}
		if c := w.Counters(); c.Changes != 2 {
			t.Errorf("%d changes were told", c.Changes)
		}
	})
}

// A host that cannot be asked takes no pool; it is tried again, less and less
// often, and then watched.
func TestOpenedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(at("10.0.0.1"))
		var tries atomic.Int64
		w := hostwatch.New(func() (hostwatch.Kernel, error) {
			if tries.Add(1) < 6 {
				return nil, errors.New("no netlink")
			}
			return k, nil
		}, slog.New(slog.DiscardHandler))
		run(t, w)
		if f, _ := w.Facts(); len(hostfacts.Conflicts(netip.MustParsePrefix("10.96.0.0/16"), f)) == 0 {
			t.Error("a host of which nothing is known takes every pool")
		}
		pass(time.Second + time.Millisecond)
		if n := tries.Load(); n != 2 {
			t.Errorf("%d tries after a second", n)
		}
		pass(time.Minute)
		holds(t, w, "10.0.0.1")
		if c := w.Counters(); c.Errors != 5 || tries.Load() != 6 {
			t.Errorf("%d tries, %+v", tries.Load(), c)
		}
		k.become(at("10.0.0.2"), nil, nil)
		pass(100 * time.Millisecond)
		holds(t, w, "10.0.0.2")
	})
}

// The end of something of ours is passed on, and so is that events were missed.
func TestTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(at("10.0.0.1"))
		w := watch(t, k)
		pass(time.Second)
		for _, c := range []struct {
			event error
			told  bool
		}{{nil, false}, {errOurs, true}, {errors.New("no buffer space available"), true}} {
			k.become(at("10.0.0.1"), nil, c.event)
			pass(1100 * time.Millisecond)
			told := false
			select {
			case <-w.RoutesChanged():
				told = true
			default:
			}
			if told != c.told {
				t.Errorf("%v: told %v", c.event, told)
			}
		}
	})
}

// What was read is believed for a minute: a host that cannot be looked at any
// more is not known, and nothing is served on the word of an old reading.
func TestOldReadingsAreNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(at("10.0.0.1"))
		w := watch(t, k)
		pass(time.Second)
		k.become(hostfacts.Facts{}, errors.New("more than 65536 routes"), nil)
		pass(30 * time.Second)
		holds(t, w, "10.0.0.1")
		pass(2 * time.Minute)
		if f, _ := w.Facts(); f.Unknown != "more than 65536 routes" {
			t.Errorf("after two minutes without an answer the host is %+v", f)
		}
		k.become(at("10.0.0.2"), nil, nil)
		pass(time.Second)
		holds(t, w, "10.0.0.2")
	})
}
