//go:build !race

package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// keeping runs a Keeper in a bubble. The disk refuses what refuse returns.
type keeping struct {
	dir      *Dir
	rewrites int
	looks    int
	refuse   error
	log      bytes.Buffer
}

func startKeeper(t *testing.T) *keeping {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "data"), testFiles()...)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeping{dir: d}
	d.write = func(path string, b []byte, mode os.FileMode) error {
		if k.refuse != nil {
			return k.refuse
		}
		return WriteFile(path, b, mode)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	keeper := &Keeper{Dir: d, Log: slog.New(slog.NewTextHandler(&k.log, nil)), Looked: func() { k.looks++ }}
	keeper.Rewrite = func(context.Context) {
		k.rewrites++
		_ = d.Save("tasks.json", 1)
	}
	go func() {
		_ = keeper.Run(ctx)
		close(ended)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		_ = d.Close()
	})
	return k
}

// after lets time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// N3: what could not be written is written again once the disk works, and both are
// said once.
func TestKeeperWritesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := startKeeper(t)
		if after(time.Minute); k.rewrites != 0 || k.looks == 0 || k.log.Len() > 0 {
			t.Errorf("%d rewrites of a directory that works, %d looks, log %q", k.rewrites, k.looks, k.log.String())
		}
		k.refuse = errors.New("no space left")
		if err := k.dir.Save("tasks.json", 1); err == nil {
			t.Fatal("saved")
		}
		after(time.Minute)
		if got := k.dir.Trouble(); k.rewrites == 0 || !strings.Contains(got, "no space left") ||
			!strings.Contains(got, "nothing can be registered") {
			t.Errorf("%d rewrites, trouble %q", k.rewrites, got)
		}
		if err := k.dir.Unsaved(); err == nil || !strings.Contains(err.Error(), "tasks.json was not saved") {
			t.Errorf("unsaved: %v", err)
		}
		k.refuse = nil
		after(time.Minute)
		if got := k.dir.Trouble(); got != "" || k.dir.Unsaved() != nil {
			t.Errorf("trouble %q, unsaved %v", got, k.dir.Unsaved())
		}
		if text := k.log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "does not work") ||
			!strings.Contains(text, "works again") {
			t.Errorf("the log says\n%s", text)
		}
	})
}

// A directory that somebody removed is made and locked again, and everything is
// written to it. A cache that is lost is nothing to report.
func TestKeeperMakesTheDirectoryAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := startKeeper(t)
		if err := os.RemoveAll(k.dir.Root()); err != nil {
			t.Fatal(err)
		}
		if k.dir.Present() {
			t.Error("a directory that is gone is present")
		}
		after(time.Minute)
		if _, err := os.Stat(k.dir.File("tasks.json")); err != nil || !k.dir.Present() || k.rewrites != 1 {
			t.Errorf("%v, present %v, %d rewrites", err, k.dir.Present(), k.rewrites)
		}
		if _, err := Acquire(k.dir.Root()); !errors.Is(err, ErrInUse) {
			t.Errorf("the lock of the new directory: %v", err)
		}
		k.refuse = errors.New("no")
		_ = k.dir.Replace("peers.json", nil)
		if err := k.dir.Unsaved(); err != nil {
			t.Errorf("a cache counts as unsaved: %v", err)
		}
	})
}
