package ipvs

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/namespace"
	"meshd/lb/sysctl"
)

// probeSysctls reports whether the namespace has the settings that the rules
// rely on.
func probeSysctls(netns string) error {
	differ, err := sysctl.Check(netns, sysctls(netns))
	if err != nil {
		return err
	}
	for _, f := range differ {
		if f.Kind == lb.FindingMissing {
			return fmt.Errorf("%w: this network namespace has IPVS, but not its settings (%s: %s); older kernels (6.1) keep "+
				"them from containers that have a user namespace of their own: use lb: nft there",
				lb.ErrUnsupported, f.What, f.Found)
		}
	}
	return nil
}

// sysctls are the settings that the rules rely on, of the namespace of that path.
// Estimates of rates (run_estimation) stay as they are: the counters need them.
func sysctls(netns string) []sysctl.Setting {
	all := []sysctl.Setting{
		{Key: "net/ipv4/vs/conntrack", Value: "1"},                               // masquerade by original destination (L2)
		{Key: "net/ipv4/vs/expire_nodest_conn", Value: "1"},                      // UDP leaves a removed backend (L5)
		{Key: "net/ipv4/vs/expire_quiescent_template", Value: "1"},               // affinity leaves a drained one
		{Key: "net/ipv4/vs/sloppy_tcp", Value: sloppyTCP(netns), Optional: true}, // idle connections come back (mh)
	}
	if reuseStalls(kernelVersion()) {
		all = append(all, sysctl.Setting{Key: "net/ipv4/vs/conn_reuse_mode", Value: "0", Optional: true})
	}
	return all
}

// sloppyTCP returns whether IPVS is to take up TCP connections that it does not know
// in the middle, 1 or 0: as conntrack does. What only IPVS took up would go to the
// backend unmasqueraded, and the client would wait for an answer that never
// comes back through the VIP; refused, it gets a reset.
func sloppyTCP(netns string) string {
	loose := "1" // as by default, and where conntrack is not loaded yet
	_ = namespace.Inside(netns, func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")
		if err == nil && strings.TrimSpace(string(text)) == "0" {
			loose = "0"
		}
		return err
	})
	return loose
}

// reuseStalls reports whether connections from a port that was in use a moment
// ago stall for a second unless IPVS lets them go to the old backend. Since
// Linux 5.9 the setting is right as it is, and 0 would be wrong.
func reuseStalls(major, minor int) bool { return major < 5 || major == 5 && minor < 9 }

// kernelVersion returns the running kernel's version, or a new one if it cannot
// be told.
func kernelVersion() (major, minor int) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 6, 0
	}
	if n, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); n < 2 || err != nil {
		return 6, 0
	}
	return major, minor
}
