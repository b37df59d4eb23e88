package state

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// This file owns where a node can be joined: how it is written.

// DefaultPort is the port of gossip where none is given.
const DefaultPort = 7946

// ParseHostPort reads where a node can be joined: IP, IP:PORT, [IPV6], [IPV6]:PORT,
// HOST or HOST:PORT. It returns HOST:PORT, with DefaultPort where there is no
// port, in the form that net.Dial takes. The error is a *ValueError. It is the
// one rule for configuration, command line and API.
func ParseHostPort(text string) (string, error) {
	const hint = "write 10.0.0.1, 10.0.0.1:7946, [fd00::1]:7946 or HOST:7946"
	if err := eitherPortOrNot(text); err != nil {
		return "", err
	}
	ap, err := netip.ParseAddrPort(text)
	if a, bad := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); bad == nil {
		ap, err = netip.AddrPortFrom(a, DefaultPort), nil
	}
	if err == nil {
		return ap.String(), checkJoinAddr(ap)
	}
	host, port, found := strings.Cut(text, ":")
	if !found {
		port = strconv.Itoa(DefaultPort)
	}
	_, noAddr := netip.ParseAddr(host)
	switch n, err := strconv.ParseUint(port, 10, 16); {
	case strings.ContainsAny(port, ":]"):
		return "", wrong(hint, "%q is not an address", text)
	case noAddr != nil && !IsHostName(host):
		return "", wrong(hint, "%q is neither an IP address nor a host's name", text)
	case err != nil || n == 0:
		return "", wrong(hint, "%q has no port from 1 to 65535", text)
	}
	return host + ":" + port, nil
}

// eitherPortOrNot refuses an IPv6 address without brackets whose last part looks
// like the port of gossip: a person who writes fd00::1:7946 means a port.
func eitherPortOrNot(text string) error {
	host, found := strings.CutSuffix(text, ":"+strconv.Itoa(DefaultPort))
	_, either := netip.ParseAddr(text)
	if _, err := netip.ParseAddr(host); !found || err != nil || either != nil {
		return nil
	}
	return wrong(fmt.Sprintf("write [%s]:%d; or [%s], if that is the address", host, DefaultPort, text),
		"%q does not say whether %d is its port", text, DefaultPort)
}

// checkJoinAddr refuses what is no node's address. Link-local addresses are
// none: a node cannot be bound to one, and the membership passes on no zones.
func checkJoinAddr(a netip.AddrPort) error {
	if ip := a.Addr(); ip.Zone() != "" || ip.IsLinkLocalUnicast() {
		return wrong("write an address that is routed, the one that the node binds to",
			"%s is reached over one link only, and no node's address", ip)
	}
	return CheckPeerAddr(a)
}

// IsHostName reports whether s can be looked up in the DNS: letters, digits,
// hyphens and underscores between dots, perhaps with a dot at the end. A name of
// digits alone is an address with a typing error.
func IsHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if len(s) > MaxName || strings.Trim(s, "0123456789.") == "" {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > MaxLabel || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") ||
			strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
