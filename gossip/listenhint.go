package gossip

import (
	"errors"
	"syscall"
)

// This file says what to do about an address that cannot be listened on.

// ListenHint says what to do about an address that cannot be listened on, by the
// kernel's error. others names the programs that often have it.
func ListenHint(err error, others string) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return others + " has it; ss -lntup shows which, stop that one or use another address or port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "it is not on this host; ip address shows those that are"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need root or CAP_NET_BIND_SERVICE"
	}
	return "use another address or port"
}
