package balancing

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/ipvs"
	"meshd/lb/nft"
)

// Drivers returns the load balancer's drivers in order of preference (L7), for
// the network namespace of a sandbox (L4) or, with an empty path, the host's.
// Only the host's may forward packets, and only where the administrator does not
// see to that.
func Drivers(choice, netns string, h Hosting, log *slog.Logger) ([]lb.Driver, error) {
	local := netns != "" || !h.Forward
	var ds []lb.Driver
	if choice == "auto" || choice == "ipvs" {
		d, err := ipvs.New(ipvs.Config{NetNS: netns, Local: local, OnSysctl: h.OnSysctl, Listener: h.Rules, Log: log})
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	if choice == "auto" || choice == "nft" {
		d, err := nft.New(nft.Config{NetNS: netns, Local: local, OnSysctl: h.OnSysctl, Listener: h.Rules, Log: log})
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	return ds, nil
}

// former returns the drivers that are not to be used where choice is, and may
// have been before.
func former(choice, netns string, h Hosting, log *slog.Logger) ([]lb.Driver, error) {
	switch choice {
	case "ipvs":
		return Drivers("nft", netns, h, log)
	case "nft":
		return Drivers("ipvs", netns, h, log)
	case "none":
		return Drivers("auto", netns, h, log)
	}
	return nil, nil
}

// threadTime returns the processor time that the calling thread has used, its
// calls of the kernel included.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
