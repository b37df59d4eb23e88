package sandbox

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// become makes this process that user, with no capability and no way back, so
// that the kernel's own checks are those for that user. It has to be called on a
// locked thread, which does all the rest: if the user does not change, only that
// thread loses its capabilities.
func become(u identity) error {
	if u.uid != os.Geteuid() || u.gid != os.Getegid() {
		// Package syscall changes all threads. The groups come first: they need the
		// privilege that the last step gives up.
		if err := syscall.Setgroups([]int{}); err != nil {
			return cannotBecome(u, err)
		}
		if err := syscall.Setresgid(u.gid, u.gid, u.gid); err != nil {
			return cannotBecome(u, err)
		}
		if err := syscall.Setresuid(u.uid, u.uid, u.uid); err != nil {
			return cannotBecome(u, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up privileges: %w", err)
	}
	// Other processes of that user may not look into this one.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("shut others out: %w", err)
	}
	return nil
}

func cannotBecome(u identity, err error) error {
	return fmt.Errorf("become the container's root, user %d and group %d of the host: %w (meshd needs CAP_SETUID and "+
		"CAP_SETGID for that)", u.uid, u.gid, err)
}
