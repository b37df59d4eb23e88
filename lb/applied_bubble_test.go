//go:build !race

package lb_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
)

// Applied is false from the moment that a view has changed until the kernel was
// given what it says, and true where there is nothing to give.
func TestApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		b := run(t, w, lb.Config{}, kernel)
		is := func(network string, want bool) {
			t.Helper()
			if got, err := b.Applied(t.Context(), network); got != want || err != nil {
				t.Errorf("applied in %q: %v, %v, want %v", network, got, err, want)
			}
		}
		after(time.Second)
		is("net", true)
		is("other", true)
		w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
		is("net", false)
		after(time.Second)
		is("net", true)
		if len(kernel.Kernel().Services) == 0 {
			t.Error("applied, and nothing in the kernel")
		}
	})
}

// Where no driver works there is nothing to wait for.
func TestAppliedWithoutDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "net")
		b := run(t, w, lb.Config{}, &lbtest.Fake{Refuse: lb.ErrUnsupported})
		after(time.Second)
		w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
		if got, err := b.Applied(t.Context(), "net"); !got || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
		failing := run(t, w, lb.Config{}, &lbtest.Fake{RefuseSetup: errors.New("not now")})
		after(10 * time.Millisecond)
		if got, err := failing.Applied(t.Context(), "net"); got || err != nil {
			t.Errorf("a driver that is tried again: got %v, %v", got, err)
		}
	})
}
