package nft

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"meshd/lb"
)

// Rules L7, R5: without privileges the error says what is missing.
func TestProbeWithoutPrivileges(t *testing.T) {
	d, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: this thread alone becomes nobody
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			t.Log(errno)
		}
		got <- d.Probe(context.Background())
	}()
	if err := <-got; !errors.Is(err, lb.ErrUnsupported) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("%v; want it to name CAP_NET_ADMIN", err)
	}
}
