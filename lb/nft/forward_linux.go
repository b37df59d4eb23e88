package nft

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"meshd/lb"
)

var (
	forward4 = Sysctl{Key: "net/ipv4/ip_forward", Value: "1"}
	forward6 = Sysctl{Key: "net/ipv6/conf/all/forwarding", Value: "1"}
)

// forward4 makes sure that IPv4 packets are forwarded.
func (h *Helpers) forward4() error {
	if h.cfg.Local {
		return nil
	}
	return h.setSysctls(forward4)
}

// forward makes sure that packets of the pool's family are forwarded. A host
// that forwards IPv6 takes no router's word any more, unless its interfaces
// insist: those that listen to routers go on doing so, or the host would lose
// its addresses and its default route.
func (h *Helpers) forward(p lb.Pool) error {
	if h.cfg.Local || p.Prefix.Addr().Is4() {
		return nil // nobody's but its own, or by Setup
	}
	missing, err := CheckSysctls(h.cfg.NetNS, []Sysctl{forward6})
	if err != nil || len(missing) == 0 {
		return err
	}
	listening, err := listeningToRouters(h.cfg.NetNS)
	if err != nil {
		return err
	}
	return h.setSysctls(append(listening, forward6)...)
}

// setSysctls makes settings, in order, and tells which it changed.
func (h *Helpers) setSysctls(settings ...Sysctl) error {
	changed, err := SetSysctls(h.cfg.NetNS, settings, h.cfg.OnSysctl)
	if len(changed) > 0 {
		h.cfg.Log.Warn("sysctls set, so that containers reach VIPs; forwarding: off leaves them to you",
			slog.Any("keys", changed))
	}
	return err
}

// listeningToRouters returns the settings with which interfaces that accept
// router advertisements now do so beside forwarding.
func listeningToRouters(netns string) (all []Sysctl, err error) {
	err = Inside(netns, func() error {
		files, err := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
		if err != nil {
			return err
		}
		for _, file := range files {
			have, err := os.ReadFile(file)
			if err != nil || strings.TrimSpace(string(have)) != "1" || strings.Contains(file, "/conf/all/") {
				continue
			}
			key := strings.TrimPrefix(file, "/proc/sys/")
			all = append(all, Sysctl{Key: key, Value: "2", Optional: true})
		}
		return nil
	})
	return all, err
}
