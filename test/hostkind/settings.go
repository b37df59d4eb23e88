//go:build linux

package hostkind

import (
	"errors"
	"net"
	"os"

	"meshd/test/rig"
)

// everyDevice sets a parameter of net.FAMILY.conf for all devices, for those that
// are there, and for those to come.
func everyDevice(h *rig.Host, family, key, value string) error {
	names := []string{"all", "default"}
	err := h.Do(func() error {
		devices, err := net.Interfaces()
		for _, d := range devices {
			names = append(names, d.Name)
		}
		return err
	})
	for _, name := range names {
		err = errors.Join(err, h.Sysctl("net."+family+".conf."+name+"."+key, value))
	}
	return err
}

// strict makes the host drop what comes by another device than the one that leads
// to its source.
func strict(h *rig.Host) error { return everyDevice(h, "ipv4", "rp_filter", "1") }

// noIPv6 takes IPv6 from the host. Its containers have theirs.
func noIPv6(h *rig.Host) error {
	h.NoIPv6 = true
	err := everyDevice(h, "ipv6", "disable_ipv6", "1")
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel that was started without it
	}
	return err
}

// bridged makes bridges call the packet filters, as br_netfilter does wherever it is
// loaded: with Docker and Kubernetes. It is part of some kernels; elsewhere it is as
// if it was not loaded.
func bridged(h *rig.Host, filtered bool) error {
	value := map[bool]string{false: "0", true: "1"}[filtered]
	err := errors.Join(h.Sysctl("net.bridge.bridge-nf-call-iptables", value),
		h.Sysctl("net.bridge.bridge-nf-call-ip6tables", value))
	switch {
	case !errors.Is(err, os.ErrNotExist):
		return err
	case filtered:
		return missing("br_netfilter, of the kernel,")
	}
	return nil
}
