package pool

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"meshd/lb"
	"meshd/lb/internal/namespace"
	"meshd/lb/sysctl"
)

// forward4 makes sure that IPv4 packets are forwarded.
func (b *Base) forward4() error {
	if b.cfg.Local {
		return nil
	}
	return b.setSysctls(sysctl.Setting{Key: sysctl.ForwardIPv4, Value: "1"})
}

// forward makes sure that packets of the pool's family are forwarded. A host
// that forwards IPv6 takes no router's word any more, unless its interfaces
// insist: those that listen to routers go on doing so, or the host would lose
// its addresses and its default route.
func (b *Base) forward(p lb.Pool) error {
	if b.cfg.Local || p.Prefix.Addr().Is4() {
		return nil // nobody's but its own, or by Setup
	}
	forward6 := sysctl.Setting{Key: sysctl.ForwardIPv6, Value: "1"}
	missing, err := sysctl.Check(b.cfg.NetNS, []sysctl.Setting{forward6})
	if err != nil || len(missing) == 0 {
		return err
	}
	listening, err := listeningToRouters(b.cfg.NetNS)
	if err != nil {
		return err
	}
	return b.setSysctls(append(listening, forward6)...)
}

// setSysctls makes settings, in order, and tells which it changed.
func (b *Base) setSysctls(settings ...sysctl.Setting) error {
	changed, err := sysctl.Set(b.cfg.NetNS, settings, b.cfg.OnSysctl)
	if len(changed) > 0 {
		b.cfg.Log.Warn("sysctls set, so that containers reach VIPs; forwarding: off leaves them to you",
			slog.Any("keys", changed))
	}
	return err
}

// listeningToRouters returns the settings with which interfaces that accept
// router advertisements now do so beside forwarding.
func listeningToRouters(netns string) (all []sysctl.Setting, err error) {
	err = namespace.Inside(netns, func() error {
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
			all = append(all, sysctl.Setting{Key: key, Value: "2", Optional: true})
		}
		return nil
	})
	return all, err
}
