//go:build !race

package lb_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
)

// leaver is a driver of an earlier run, with services in use.
type leaver struct {
	lbtest.Fake

	left   int
	calls  []lb.Leaving
	at     []time.Time
	closed int
}

func (l *leaver) Leave(_ context.Context, how lb.Leaving) (int, error) {
	l.calls, l.at = append(l.calls, how), append(l.at, time.Now())
	if how.Cut {
		l.left = 0
	}
	return l.left, nil
}

func (l *leaver) Close() error {
	l.closed++
	return nil
}

// Rules L1, L5: what other drivers left is ended once the one that is used knows
// what to serve, in the time that a drain has, and looked after no more.
func TestLeavesOthersBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, unused := &leaver{left: 2}, &leaver{}
		kernel, w := &lbtest.Fake{DriverName: "nft"}, newWorld(t, "net")
		w.store.Table("net").SetSynced()
		began := time.Now()
		run(t, w, lb.Config{Former: []lb.Driver{old}}, kernel, unused)
		after(5 * time.Second)
		if n := len(old.calls); n == 0 || n > 5 || old.calls[0] != (lb.Leaving{}) || len(unused.calls) != 1 {
			t.Errorf("after 5 s it was asked %v, the one that is not chosen %v", old.calls, unused.calls)
		}
		after(2 * time.Minute)
		last := len(old.calls) - 1
		if took := old.at[last].Sub(began); !old.calls[last].Cut || took < 29*time.Second || took > 32*time.Second ||
			last > 15 {
			t.Errorf("it was asked %v, last after %v; want the rest to be cut after 30 s", old.calls, took)
		}
		if old.closed == 0 {
			t.Error("its sockets are open still")
		}
	})
}

// Before the views are complete, the old driver serves what the new one does not
// know yet.
func TestLeavesNothingTooSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := &leaver{}
		kernel, w := &lbtest.Fake{DriverName: "nft"}, newWorld(t)
		run(t, w, lb.Config{Former: []lb.Driver{old}}, kernel)
		after(5 * time.Second)
		if len(old.calls) > 0 {
			t.Errorf("asked to leave after %v, with no network known", old.at[0])
		}
		after(10 * time.Second)
		if len(old.calls) != 1 {
			t.Errorf("asked to leave %d times after the grace period, want once", len(old.calls))
		}
	})
}

// Without a driver, what earlier ones left is ended as well, by whoever may
// program the kernel, which is given free afterwards.
func TestLeavesForNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := &leaver{left: 1}
		var asked int
		var told []string
		run(t, newWorld(t, "net"), lb.Config{
			Former: []lb.Driver{old}, OnDriver: func(name string) { told = append(told, name) },
			MayProgram: func() error { asked++; return nil },
		})
		after(5 * time.Minute)
		last := len(old.calls) - 1
		if last < 1 || !old.calls[0].Alone || old.calls[0].Cut || !old.calls[last].Cut || !old.calls[last].Alone {
			t.Errorf("asked to leave: %v", old.calls)
		}
		if asked != 1 || len(told) != 1 || told[0] != "" {
			t.Errorf("asked for the kernel %d times, told %q; want once, and the end", asked, told)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		old := &leaver{left: 1}
		run(t, newWorld(t, "net"), lb.Config{
			Former:     []lb.Driver{old},
			MayProgram: func() error { return errors.New("process 7 has it") },
		})
		after(5 * time.Minute)
		if len(old.calls) > 0 {
			t.Errorf("beside another process, asked to leave: %v", old.calls)
		}
	})
}
