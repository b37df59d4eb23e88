package namespace

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"

	"meshd/lb"
)

// Inside calls f on a thread that is inside the network namespace of that path:
// sysctls and new sockets belong to the namespace of the thread that opens them.
// An empty path is the caller's own namespace. It returns what f returns; a
// namespace that may not be entered is lb.ErrUnsupported.
func Inside(path string, f func() error) error {
	if path == "" {
		return f()
	}
	done := make(chan error, 1)
	go func() { done <- inside(path, f) }()
	return <-done
}

// inside takes the thread to the namespace and back. A thread that cannot go
// back is not used again: it ends with its goroutine, but for the first one,
// which would hold the namespace for as long as the process lives.
func inside(path string, f func() error) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer ns.Close()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("network namespace of the thread: %w", err)
	}
	defer home.Close()
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return explain(path, err)
	}
	defer func() {
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

func explain(path string, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: no CAP_NET_ADMIN (enter network namespace %s: %w); run as root or grant the capability",
			lb.ErrUnsupported, path, err)
	}
	return fmt.Errorf("enter network namespace %s: %w", path, err)
}
