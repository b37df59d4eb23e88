package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"meshd/gossip"
	"meshd/state"
)

const (
	minPushRate = 16 << 10
	maxTasks    = 10_000_000
	// maxDomain leaves room for the longest name in the domain, that of a task,
	// SERVICE.SLOT.ID.NETWORK: a reply with a longer one is unreadable.
	maxDomain = state.MaxName - 3*(state.MaxLabel+1) - len("4294967295.")
)

// settled is a Config after validation.
type settled struct {
	Config
	bind        netip.AddrPort
	socketGroup int // -1: of the process
	advertise   netip.Addr
	dns         []netip.AddrPort
	pools       []netip.Prefix // within which this host takes VIP pools (L9)
	dnsClients  []netip.Prefix // nil: the subnets that the host is connected to
	upstream    []netip.AddrPort
	upstreams   map[string][]netip.AddrPort // of domains with servers of their own
	keys        [][]byte
}

// ErrConfig is what the errors of New about its configuration are.
var ErrConfig = errors.New("invalid configuration")

// configError is an ErrConfig without a text of its own.
type configError struct{ error }

func (configError) Is(target error) bool { return target == ErrConfig }
func (e configError) Unwrap() error      { return e.error }

// settle fills defaults and checks every field; the error is an ErrConfig and
// names the field and what to write instead.
func (c Config) settle() (*settled, error) {
	if c.Node == "" {
		c.Node, _ = os.Hostname()
	}
	c.Node = strings.ToLower(c.Node)
	c = c.WithDefaults()
	c.Join = slices.Clone(c.Join) // the caller's is not completed
	s := &settled{Config: c}
	if err := state.CheckName(c.Node); err != nil {
		return nil, configError{fmt.Errorf("node: %s; give --node NAME", nameTrouble(err))}
	}
	for _, f := range []func() error{
		s.readBind, s.readAdvertise, s.readDNS, s.readClients, s.readUpstreams, s.readJoin, s.readPools,
		s.paths, s.choices, s.readGroup, s.amounts, s.names, s.readKeys, s.open, s.listens,
	} {
		if err := f(); err != nil {
			return nil, configError{err}
		}
	}
	return s, nil
}

func (s *settled) readBind() (err error) {
	if s.bind, err = addrPort(s.Bind, defaultPort); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	a := s.bind.Addr()
	switch {
	case !a.IsUnspecified() && !dialled(a):
		return fmt.Errorf("bind: other hosts cannot dial %s; use an address that they reach, or 0.0.0.0", a)
	case s.bind.Port() == 0 && !a.IsLoopback():
		return fmt.Errorf("bind: port 0 is another one after each start, where nobody would look for this node; use %s",
			netip.AddrPortFrom(a, defaultPort))
	}
	return nil
}

func (s *settled) readAdvertise() (err error) {
	if s.Advertise == "" {
		return nil
	}
	if s.advertise, err = netip.ParseAddr(s.Advertise); err != nil {
		return fmt.Errorf("advertise: %q is not an IP address; the port is that of bind", s.Advertise)
	}
	s.advertise = s.advertise.Unmap()
	a, bind := s.advertise, s.bind.Addr()
	switch {
	case !dialled(a):
		return fmt.Errorf("advertise: other hosts cannot dial %s; use an address that they reach", a)
	case a.IsLoopback() && !bind.IsLoopback():
		return fmt.Errorf("advertise: %s is every host itself; use an address that other hosts reach", a)
	case a.Is4() != bind.Is4() && !bind.IsUnspecified():
		return fmt.Errorf("advertise: %s is not of the family of bind, %s; nothing would arrive", a, bind)
	}
	return nil
}

// dialled reports whether an address can be that of a node, as its peers see it:
// what they refuse in what others say of it would leave it alone.
func dialled(a netip.Addr) bool {
	return state.CheckPeerAddr(netip.AddrPortFrom(a, defaultPort)) == nil && a.Zone() == "" && !a.IsLinkLocalUnicast()
}

func (s *settled) readDNS() error {
	for _, text := range s.DNS {
		p, err := addrPort(text, 53)
		if err != nil {
			return fmt.Errorf("dns: %w", err)
		}
		if a := p.Addr(); a.IsMulticast() || !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !dialled(a) {
			return fmt.Errorf("dns: %s is no address of one host; use one of this host's", a)
		}
		if p.Port() == 0 && !p.Addr().IsLoopback() {
			return fmt.Errorf("dns: port 0 is another one after each start, where nobody would ask; use %s",
				netip.AddrPortFrom(p.Addr(), 53))
		}
		if p.Port() != 0 && slices.Contains(s.dns, p) {
			return fmt.Errorf("dns: %s is there twice; keep one", p)
		}
		s.dns = append(s.dns, p)
	}
	for _, all := range s.dns {
		for _, one := range s.dns {
			if all.Addr().IsUnspecified() && one != all && one.Port() == all.Port() &&
				(one.Addr().Is4() == all.Addr().Is4() || all.Addr().Is6()) {
				return fmt.Errorf("dns: %s is on all addresses, that of %s among them; keep one of the two", all, one)
			}
		}
	}
	return nil
}

func (s *settled) readClients() error {
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
		s.dnsClients = append(s.dnsClients, p)
	}
	return nil
}

// unmapped makes an IPv4 prefix of one that is written as IPv6, since addresses
// are compared as IPv4.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func (s *settled) readJoin() error {
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

func (s *settled) choices() error {
	for _, c := range []struct{ field, value, allowed string }{
		{"lb", s.LB, "auto ipvs nft none"},
		{"forwarding", s.Forwarding, "auto devices off"},
		{"firewall", s.Firewall, "tell accept"},
		{"profile", s.Profile, " lan wan local"},
		{"log-level", s.LogLevel, " debug info warn error"},
		{"log-format", s.LogFormat, " text json"},
	} {
		if !slices.Contains(strings.Split(c.allowed, " "), c.value) {
			return fmt.Errorf("%s: %q; use one of: %s", c.field, c.value, strings.TrimSpace(c.allowed))
		}
	}
	return nil
}

// readGroup finds the group by its name or number.
func (s *settled) readGroup() error {
	s.socketGroup = -1
	if s.SocketGroup == "" {
		return nil
	}
	if g, err := user.LookupGroup(s.SocketGroup); err == nil {
		s.socketGroup, _ = strconv.Atoi(g.Gid)
		return nil
	}
	n, err := strconv.ParseUint(s.SocketGroup, 10, 31)
	if err != nil {
		return fmt.Errorf("socket-group: this host has no group %q; make it with groupadd, or give a number", s.SocketGroup)
	}
	s.socketGroup = int(n)
	return nil
}

// amounts checks what flags check too, for those who fill a Config themselves.
func (s *settled) amounts() error {
	ttl, verify := time.Duration(s.TTL), time.Duration(s.LBVerify)
	switch {
	case !(s.Preserve >= 0 && s.Preserve <= 1): // not a number, too
		return fmt.Errorf("preserve: %v is not a share from 0 to 1", s.Preserve)
	case s.PushRate < 0 || s.PushRate > 0 && s.PushRate < minPushRate:
		return fmt.Errorf("push-rate: %d; at least %d bytes per second", s.PushRate, minPushRate)
	case s.QueryLog < 0:
		return fmt.Errorf("query-log: %d; use 1 for every question, N for one of N, 0 for none", s.QueryLog)
	case s.MaxTasks < 0 || s.MaxTasks > maxTasks:
		return fmt.Errorf("max-tasks: %d; use 1 to %d", s.MaxTasks, maxTasks)
	case s.TableMemory != 0 && s.TableMemory < state.MinTableMemory || s.TableMemory > maxTableMemory:
		return fmt.Errorf("table-memory: %d bytes; use %s to %s", s.TableMemory, sizeText(state.MinTableMemory),
			sizeText(maxTableMemory))
	case verify != 0 && verify < time.Second, verify > time.Hour:
		return fmt.Errorf("lb-verify: %v; use 1s to 1h, changes by others of which nothing tells stay that long", verify)
	case ttl < 0 || ttl > time.Hour:
		return fmt.Errorf("ttl: %v; at most an hour, clients would keep dead addresses", ttl)
	case ttl%time.Second != 0:
		return fmt.Errorf("ttl: %v; use whole seconds, DNS has no others", ttl)
	case s.Reservation < 0 || s.D1 < 0:
		return errors.New("reservation, d1: a duration is above 0")
	}
	return nil
}

func (s *settled) names() error {
	if !state.IsHostName(s.Domain) {
		return fmt.Errorf("domain: %q is not a domain name; use one like mesh.internal", s.Domain)
	}
	if d := "." + strings.ToLower(strings.TrimSuffix(s.Domain, ".")); strings.HasSuffix(d, ".localhost") ||
		strings.HasSuffix(d, ".arpa") && !strings.HasSuffix(d, ".home.arpa") {
		return fmt.Errorf("domain: %q has a meaning of its own in every resolver; use one like mesh.internal", s.Domain)
	}
	if n := len(strings.TrimSuffix(s.Domain, ".")); n > maxDomain {
		return fmt.Errorf("domain: %q has %d characters, at most %d leave room for the names in it", s.Domain, n, maxDomain)
	}
	seen := map[string]bool{}
	s.Networks = slices.Clone(s.Networks) // the caller's is not changed
	for i, n := range s.Networks {
		n = strings.ToLower(n)
		s.Networks[i] = n
		if err := state.CheckName(n); err != nil {
			return fmt.Errorf("networks: %s", nameTrouble(err))
		}
		if seen[n] {
			return fmt.Errorf("networks: %s is there twice; keep one", n)
		}
		seen[n] = true
	}
	return nil
}

// nameTrouble is what package state says of a name, without what the name of the
// setting says already.
func nameTrouble(err error) string { return strings.TrimPrefix(err.Error(), "invalid: name: ") }

// open refuses what would let everybody into the mesh without anybody having
// said so.
func (s *settled) open() error {
	switch {
	case len(s.keys) > 0 && s.Insecure:
		return errors.New("insecure: there is a key-file too, which --insecure would not use; remove one of the two")
	case len(s.keys) > 0 || s.Insecure || s.bind.Addr().IsLoopback():
		return nil
	}
	return fmt.Errorf("key-file: without a key, everybody who reaches %s can change what this host does; make one with "+
		"\"meshctl keygen --out /etc/meshd/key\", copy it to every host and start each meshd with --key-file "+
		"/etc/meshd/key (in the file, key-file: /etc/meshd/key), or say --insecure (insecure: true) to go without", s.bind)
}

// undefined says which of the networks that were asked for nobody has made.
func undefined(networks []string, defs map[string]state.NetworkDef) (out []string) {
	for _, name := range networks {
		if _, ok := defs[name]; !ok {
			out = append(out, fmt.Sprintf("networks: nobody has made a network %s; if that is no typing error, meshctl "+
				"network create %s", name, name))
		}
	}
	return out
}

// core returns the protocol's settings.
func (s *settled) core() gossip.CoreConfig {
	return gossip.CoreConfig{
		StopOfferingAfter: time.Duration(s.D1), Preserve: s.Preserve, PushRate: s.PushRate,
		Reservation: time.Duration(s.Reservation), BeaconEvery: 10 * time.Second,
	}
}

func (s *settled) limits() state.Limits {
	l := state.DefaultLimits().ForMemory(s.tableMemory())
	l.AllowLoopback = s.AllowLoopbackTasks
	if s.MaxTasks > 0 {
		l.Entries = s.MaxTasks * 2
	}
	return l
}
