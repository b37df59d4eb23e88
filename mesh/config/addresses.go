package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"meshd/lb/hostfacts"
	"meshd/state"
)

// readBind reads where to gossip.
func (s *Settings) readBind() (err error) {
	if s.BindAddr, err = addrPort(s.Bind, defaultPort); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	a := s.BindAddr.Addr()
	switch {
	case !a.IsUnspecified() && !isNodeAddr(a):
		return fmt.Errorf("bind: other hosts cannot dial %s; use an address that they reach, or 0.0.0.0", a)
	case s.BindAddr.Port() == 0 && !a.IsLoopback():
		return fmt.Errorf("bind: port 0 is another one after each start, where nobody would look for this node; use %s",
			netip.AddrPortFrom(a, defaultPort))
	}
	return nil
}

// readAdvertise reads what other nodes dial.
func (s *Settings) readAdvertise() (err error) {
	if s.Advertise == "" {
		return nil
	}
	if s.AdvertiseAddr, err = netip.ParseAddr(s.Advertise); err != nil {
		return fmt.Errorf("advertise: %q is not an IP address; the port is that of bind", s.Advertise)
	}
	s.AdvertiseAddr = s.AdvertiseAddr.Unmap()
	a, bind := s.AdvertiseAddr, s.BindAddr.Addr()
	switch {
	case !isNodeAddr(a):
		return fmt.Errorf("advertise: other hosts cannot dial %s; use an address that they reach", a)
	case a.IsLoopback() && !bind.IsLoopback():
		return fmt.Errorf("advertise: %s is every host itself; use an address that other hosts reach", a)
	case a.Is4() != bind.Is4() && !bind.IsUnspecified():
		return fmt.Errorf("advertise: %s is not of the family of bind, %s; nothing would arrive", a, bind)
	}
	return nil
}

// isNodeAddr reports whether peers take an address for that of a node. A node at another
// one would stay alone.
func isNodeAddr(a netip.Addr) bool {
	return state.CheckPeerAddr(netip.AddrPortFrom(a, defaultPort)) == nil && a.Zone() == "" && !a.IsLinkLocalUnicast()
}

// readDNS reads where to answer DNS.
func (s *Settings) readDNS() error {
	for _, text := range s.DNS {
		p, err := addrPort(text, 53)
		if err != nil {
			return fmt.Errorf("dns: %w", err)
		}
		if a := p.Addr(); a.IsMulticast() || !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !isNodeAddr(a) {
			return fmt.Errorf("dns: %s is no address of one host; use one of this host's", a)
		}
		if p.Port() == 0 && !p.Addr().IsLoopback() {
			return fmt.Errorf("dns: port 0 is another one after each start, where nobody would ask; use %s",
				netip.AddrPortFrom(p.Addr(), 53))
		}
		if p.Port() != 0 && slices.Contains(s.DNSAddrs, p) {
			return fmt.Errorf("dns: %s is there twice; keep one", p)
		}
		s.DNSAddrs = append(s.DNSAddrs, p)
	}
	for _, all := range s.DNSAddrs {
		for _, one := range s.DNSAddrs {
			if all.Addr().IsUnspecified() && one != all && one.Port() == all.Port() &&
				(one.Addr().Is4() == all.Addr().Is4() || all.Addr().Is6()) {
				return fmt.Errorf("dns: %s is on all addresses, that of %s among them; keep one of the two", all, one)
			}
		}
	}
	return nil
}

// readClients reads whom to answer there.
func (s *Settings) readClients() error {
	for _, text := range s.DNSClients {
		p, err := netip.ParsePrefix(text)
		if a, bad := netip.ParseAddr(text); bad == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		p = unmapped(p)
		switch {
		case err != nil:
			return fmt.Errorf("dns-clients: %q is not a subnet; write 10.0.0.0/8, fd00::/8 or one address", text)
		case p.Masked() != p:
			return fmt.Errorf("dns-clients: %s has bits behind the prefix; write %s", p, p.Masked())
		}
		s.ClientRanges = append(s.ClientRanges, p)
	}
	return nil
}

// unmapped makes an IPv4 prefix of one that is written as IPv6, since it is compared with
// IPv4 addresses.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// readJoin completes the seeds with their ports.
func (s *Settings) readJoin() error {
	for i, text := range s.Join {
		addr, err := state.ParseHostPort(text)
		if err != nil {
			return fmt.Errorf("join: %w", err)
		}
		s.Join[i] = addr
	}
	return nil
}

// addrPort reads IP or IP:PORT. An IPv4 address that is written as IPv6 is IPv4.
func addrPort(s string, port uint16) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return netip.AddrPortFrom(a.Unmap(), port), nil
	}
	p, err := netip.ParseAddrPort(s)
	if err != nil {
		return p, fmt.Errorf("%q is not IP:PORT; write 10.0.0.1:%d or [fd00::1]:%d", s, port, port)
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()), nil
}

// readPools reads the ranges within which this host takes pools (L9).
func (s *Settings) readPools() error {
	s.PoolRanges = hostfacts.DefaultPools()
	if len(s.Pools) > 0 {
		s.PoolRanges = nil
	}
	for _, text := range s.Pools {
		p, err := netip.ParsePrefix(text)
		p = unmapped(p)
		switch {
		case err != nil:
			return fmt.Errorf("pools: %q is no prefix; write 10.96.0.0/12", text)
		case p != p.Masked():
			return fmt.Errorf("pools: %s has host bits set; did you mean %s?", p, p.Masked())
		}
		if err := state.CheckPoolRange(p); err != nil {
			return fmt.Errorf("pools: %w", err)
		}
		s.PoolRanges = append(s.PoolRanges, p)
	}
	return nil
}

// readUpstreams reads IP[:PORT] and DOMAIN=IP[:PORT] (R7.1).
func (s *Settings) readUpstreams() error {
	for _, text := range s.Upstream {
		domain, server, own := strings.Cut(text, "=")
		if !own {
			server = text
		}
		p, err := addrPort(strings.TrimSpace(server), 53)
		if err != nil {
			return fmt.Errorf("upstream: %w", err)
		}
		if a := p.Addr(); a.IsUnspecified() || a.IsMulticast() || p.Port() == 0 {
			return fmt.Errorf("upstream: %s is no server's address; write 10.0.0.53 or 10.0.0.53:5353", p)
		}
		if !own {
			s.Servers = append(s.Servers, p)
			continue
		}
		if domain = strings.ToLower(strings.Trim(domain, " .")); domain == "" {
			return fmt.Errorf("upstream: %q has no domain; write corp.example=10.0.0.53, or 10.0.0.53 for all names", text)
		}
		if !state.IsHostName(domain) {
			return fmt.Errorf("upstream: %q is not a domain name; write corp.example=10.0.0.53", domain)
		}
		if own := strings.ToLower(strings.Trim(s.Domain, ".")); domain == own || strings.HasSuffix(domain, "."+own) {
			return fmt.Errorf("upstream: names of %s are answered by the mesh and never forwarded; leave %q out", own, text)
		}
		if s.DomainServers == nil {
			s.DomainServers = map[string][]netip.AddrPort{}
		}
		s.DomainServers[domain] = append(s.DomainServers[domain], p)
	}
	return nil
}
