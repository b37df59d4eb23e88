package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"unicode"

	"meshd/state"
)

// checkPaths refuses paths that the kernel would take and that must be a mistake.
func (s *Settings) checkPaths() error {
	for _, p := range []struct{ field, path string }{
		{"data-dir", s.DataDir},
		{"socket", s.Socket},
		{"key-file", s.KeyFile},
	} {
		if err := CheckPath(p.path); err != nil {
			return fmt.Errorf("%s: %q: %w", p.field, p.path, err)
		}
	}
	if filepath.Clean(s.DataDir) == "/" {
		return fmt.Errorf("data-dir: %q is the root of all files; give meshd a directory of its own, such as %s", s.DataDir,
			defaultDataDir)
	}
	return nil
}

// CheckPath says why s must be a mistake rather than a path. It takes an empty s.
func CheckPath(s string) error {
	scheme, path, found := strings.Cut(s, "://")
	switch {
	case found:
		return fmt.Errorf("it is a path, without %s://; write /%s", scheme, strings.TrimLeft(path, "/"))
	case strings.HasPrefix(s, "~"), strings.Contains(s, "$"), strings.Contains(s, "{{"):
		return errors.New("nothing replaces ~, variables or templates here; write the whole path")
	case strings.HasPrefix(s, "@"):
		return errors.New("abstract sockets have no mode and let everybody in; write the path of a file")
	case strings.TrimSpace(s) != s, strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("there is a space at its end, or a control character in it; remove it")
	}
	return nil
}

// checkListeners refuses to listen at a broadcast address: the kernel allows it, and no
// peer and no container gets an answer from there.
func (s *Settings) checkListeners() error {
	own, _ := net.InterfaceAddrs() // none: there is nothing to compare with
	if p := broadcastOf(s.BindAddr.Addr(), own); p.IsValid() {
		return fmt.Errorf("bind: %s is the broadcast address of %s; use this host's own", s.BindAddr.Addr(), p)
	}
	for _, a := range s.DNSAddrs {
		if p := broadcastOf(a.Addr(), own); p.IsValid() {
			return fmt.Errorf("dns: %s is the broadcast address of %s; use this host's own", a.Addr(), p)
		}
	}
	return nil
}

// broadcastOf returns the subnet whose broadcast address a is, among those of a
// host's addresses, or the zero Prefix.
func broadcastOf(a netip.Addr, own []net.Addr) netip.Prefix {
	var prefixes []netip.Prefix
	for _, x := range own {
		if p, err := netip.ParsePrefix(x.String()); err == nil {
			prefixes = append(prefixes, p)
		}
	}
	return state.BroadcastSubnet(a, prefixes)
}
