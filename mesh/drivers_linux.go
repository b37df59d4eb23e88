package mesh

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/ipvs"
	"meshd/lb/nft"
)

// drivers returns the load balancer's drivers in order of preference (L7), for
// the network namespace of a sandbox (L4) or, with an empty path, the host's.
// Only the host's may forward packets, and only where the administrator does not
// see to that.
func drivers(choice, netns string, h hosting, log *slog.Logger) ([]lb.Driver, error) {
	local := netns != "" || !h.forward
	var ds []lb.Driver
	if choice == "auto" || choice == "ipvs" {
		d, err := ipvs.New(ipvs.Config{NetNS: netns, Local: local, OnSysctl: h.onSysctl, Listener: h.rules, Log: log})
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	if choice == "auto" || choice == "nft" {
		d, err := nft.New(nft.Config{NetNS: netns, Local: local, OnSysctl: h.onSysctl, Listener: h.rules, Log: log})
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	return ds, nil
}

// former returns the drivers that are not to be used where choice is, and may
// have been before.
func former(choice, netns string, h hosting, log *slog.Logger) ([]lb.Driver, error) {
	switch choice {
	case "ipvs":
		return drivers("nft", netns, h, log)
	case "nft":
		return drivers("ipvs", netns, h, log)
	case "none":
		return drivers("auto", netns, h, log)
	}
	return nil, nil
}

// changedSysctls is nft.ChangedSysctls, and putBackSysctls is nft.PutBackSysctls.
func changedSysctls(all []nft.SysctlChange) (ours []nft.SysctlChange, others []string, err error) {
	return nft.ChangedSysctls(all)
}

// switchOn makes settings of the host 1, and tells of each that was not.
func switchOn(keys []string, tell func(nft.SysctlChange)) error {
	var settings []nft.Sysctl
	for _, key := range keys {
		settings = append(settings, nft.Sysctl{Key: key, Value: "1", Optional: true})
	}
	_, err := nft.SetSysctls("", settings, tell)
	return err
}

func putBackSysctls(all []nft.SysctlChange) error { return nft.PutBackSysctls(all) }

// threadTime returns the processor time that the calling thread has used, its
// calls of the kernel included.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
