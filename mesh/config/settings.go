package config

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

	"meshd/mesh/internal/keys"
	"meshd/state"
)

const (
	minPushRate = 16 << 10
	maxTasks    = 10_000_000
	// maxDomain leaves room for the longest name in the domain, that of a task,
	// SERVICE.SLOT.ID.NETWORK: a reply with a longer one is unreadable.
	maxDomain = state.MaxName - 3*(state.MaxLabel+1) - len("4294967295.")
)

// Settings is a Config that was checked, with the values of its texts. It must not be
// changed.
type Settings struct {
	Config

	// Gossip and the API.

	BindAddr      netip.AddrPort // of Bind
	AdvertiseAddr netip.Addr     // of Advertise; invalid: none was given
	GossipKeys    [][]byte       // of KeyFile, the primary first
	SocketGID     int            // of SocketGroup; -1: the group of the process

	// DNS.

	DNSAddrs      []netip.AddrPort            // of DNS
	ClientRanges  []netip.Prefix              // of DNSClients; nil: the host's subnets
	Servers       []netip.AddrPort            // of Upstream, for all names; nil: /etc/resolv.conf
	DomainServers map[string][]netip.AddrPort // of Upstream, by domain, lower case without a dot at its end

	PoolRanges []netip.Prefix // of Pools, or the private ranges (L9)
}

// ErrInvalid is what all errors about a configuration are.
var ErrInvalid = errors.New("invalid configuration")

// Invalid returns err as an error that is ErrInvalid, with the same text.
func Invalid(err error) error { return invalidError{err} }

// invalidError is ErrInvalid with the text of another error.
type invalidError struct{ error }

func (invalidError) Is(target error) bool { return target == ErrInvalid }
func (e invalidError) Unwrap() error      { return e.error }

// Check fills in the defaults and checks every field. The error is ErrInvalid and names
// the field and what to write instead.
func (c Config) Check() (*Settings, error) {
	if c.Node == "" {
		c.Node, _ = os.Hostname()
	}
	c.Node = strings.ToLower(c.Node)
	c = c.WithDefaults()
	c.Join = slices.Clone(c.Join) // the caller's is not completed
	s := &Settings{Config: c}
	if err := state.CheckName(c.Node); err != nil {
		return nil, Invalid(fmt.Errorf("node: %s; give --node NAME", nameError(err)))
	}
	for _, f := range []func() error{
		s.readBind, s.readAdvertise, s.readDNS, s.readClients, s.readUpstreams, s.readJoin, s.readPools, s.checkPaths,
		s.checkChoices, s.checkDocker, s.readGroup, s.checkAmounts, s.checkNames, s.readKeys, s.checkOpen, s.checkListeners,
	} {
		if err := f(); err != nil {
			return nil, Invalid(err)
		}
	}
	return s, nil
}

// checkChoices checks values of which there are only some.
func (s *Settings) checkChoices() error {
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

// readKeys reads the key file.
func (s *Settings) readKeys() (err error) {
	if s.KeyFile != "" {
		s.GossipKeys, err = keys.ReadFile(s.KeyFile)
	}
	return err
}

// readGroup finds the group by its name or number.
func (s *Settings) readGroup() error {
	s.SocketGID = -1
	if s.SocketGroup == "" {
		return nil
	}
	if g, err := user.LookupGroup(s.SocketGroup); err == nil {
		s.SocketGID, _ = strconv.Atoi(g.Gid)
		return nil
	}
	n, err := strconv.ParseUint(s.SocketGroup, 10, 31)
	if err != nil {
		return fmt.Errorf("socket-group: this host has no group %q; make it with groupadd, or give a number", s.SocketGroup)
	}
	s.SocketGID = int(n)
	return nil
}

// checkAmounts checks amounts as flags do, for callers that fill in a Config themselves.
func (s *Settings) checkAmounts() error {
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

// checkNames checks the domain and the networks, which it makes lower case.
func (s *Settings) checkNames() error {
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
			return fmt.Errorf("networks: %s", nameError(err))
		}
		if seen[n] {
			return fmt.Errorf("networks: %s is there twice; keep one", n)
		}
		seen[n] = true
	}
	return nil
}

// nameError is the error of package state about a name, without the words that the name
// of the setting repeats.
func nameError(err error) string { return strings.TrimPrefix(err.Error(), "invalid: name: ") }

// checkOpen refuses gossip that is open to other hosts, unless a person wrote that it is.
func (s *Settings) checkOpen() error {
	switch {
	case len(s.GossipKeys) > 0 && s.Insecure:
		return errors.New("insecure: there is a key-file too, which --insecure would not use; remove one of the two")
	case len(s.GossipKeys) > 0 || s.Insecure || s.BindAddr.Addr().IsLoopback():
		return nil
	}
	return fmt.Errorf("key-file: without a key, everybody who reaches %s can change what this host does; make one with "+
		"\"meshctl keygen --out /etc/meshd/key\", copy it to every host and start each meshd with --key-file "+
		"/etc/meshd/key (in the file, key-file: /etc/meshd/key), or say --insecure (insecure: true) to go without",
		s.BindAddr)
}

// Limits returns the bounds of the table.
func (s *Settings) Limits() state.Limits {
	l := state.DefaultLimits().ForMemory(s.tableMemory())
	l.AllowLoopback = s.AllowLoopbackTasks
	if s.MaxTasks > 0 {
		l.Entries = s.MaxTasks * 2
	}
	return l
}
