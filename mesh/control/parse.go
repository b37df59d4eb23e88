package control

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// ParsedTask is what AddTask asks for, checked and in the types of the table.
type ParsedTask struct {
	Network   string
	Endpoint  state.Endpoint // normalized; ID may be empty
	Mode      *state.Mode    // nil: as the service is, ModeVIP if it is new
	Scheduler string         // empty: as the service is, rr if it is new
	TTL       time.Duration  // 0: as the service is, the node's for a new one
	VIPs      []netip.Addr   // to pin; none: chosen by the mesh
}

// Parse checks the request and converts it. The error is an *Error of
// CodeInvalid that names the field and the fix.
func (r AddTask) Parse() (ParsedTask, error) {
	p := ParsedTask{Network: strings.ToLower(r.Network), Scheduler: strings.ToLower(r.Scheduler)}
	p.Endpoint = state.Endpoint{
		ID: r.ID, Service: r.Service, Slot: r.Slot, Name: r.Name, Hostname: r.Hostname,
		Aliases: slices.Clone(r.Aliases), Weight: r.Weight,
	}
	p.Endpoint.Normalize()
	for _, check := range []func() error{
		func() error { return CheckName("network", p.Network) },
		func() error { return CheckName("service", p.Endpoint.Service) },
		func() error { return checkAsked("service", p.Endpoint.Service) },
		func() error { return r.parseIPs(&p.Endpoint) },
		func() error { return r.parsePorts(&p.Endpoint) },
		func() error { return r.parseService(&p) },
		func() error { return checkNames(p.Endpoint) },
	} {
		if err := check(); err != nil {
			return ParsedTask{}, err
		}
	}
	return p, nil
}

func (r AddTask) parseIPs(e *state.Endpoint) error {
	ips, err := parseAddrs("ips", r.IPs)
	if err != nil {
		return err
	}
	if len(ips) == 0 {
		return invalid("ips", "give the address of the task, for example 10.1.0.7", "a task needs an IP address")
	}
	for _, a := range ips {
		if a.Is4() {
			e.IP4 = a
		} else {
			e.IP6 = a
		}
	}
	return nil
}

func (r AddTask) parsePorts(e *state.Endpoint) error {
	if len(r.Ports) > state.MaxPorts {
		return invalid("ports", "declare none to balance all ports", "%d ports, at most %d", len(r.Ports), state.MaxPorts)
	}
	for _, s := range r.Ports {
		port, err := state.ParsePort(s)
		if err != nil {
			return invalid("ports", "write [NAME:]PORT[/tcp|udp], for example http:80/tcp", "%v", err)
		}
		for _, q := range e.Ports {
			if q.Number == port.Number && q.Proto == port.Proto {
				return invalid("ports", "give each port once", "%d/%s is given twice", port.Number, port.Proto)
			}
		}
		e.Ports = append(e.Ports, port)
	}
	return nil
}

func (r AddTask) parseService(p *ParsedTask) (err error) {
	if r.Mode != "" {
		mode, err := state.ParseMode(strings.ToLower(r.Mode))
		if err != nil {
			return invalid("mode", "vip gives the service a stable virtual IP, dnsrr answers with the task addresses",
				"%q is not vip or dnsrr", r.Mode)
		}
		p.Mode = &mode
	}
	if p.Scheduler != "" && !slices.Contains(Schedulers(), p.Scheduler) {
		return invalid("scheduler", "use one of "+strings.Join(Schedulers(), ", "), "%q is not known", r.Scheduler)
	}
	if p.TTL, err = parseTTL(r.TTL); err != nil {
		return err
	}
	if p.VIPs, err = parseAddrs("vips", r.VIPs); err != nil {
		return err
	}
	if len(p.VIPs) > 0 && p.Mode != nil && *p.Mode == state.ModeDNSRR {
		return invalid("vips", "leave it out, or use mode vip", "a dnsrr service has no virtual IP")
	}
	return nil
}

// Apply returns the settings with what the request changes. The error is an
// *Error of CodeInvalid that names the field and the fix.
func (r SetService) Apply(s state.Settings) (state.Settings, error) {
	if r == (SetService{}) {
		return s, invalid("mode", "give a mode, a scheduler or a TTL", "the request changes nothing")
	}
	add := AddTask{Mode: r.Mode, Scheduler: r.Scheduler}
	if r.TTL == "default" {
		s.TTL = 0
	} else {
		add.TTL = r.TTL
	}
	p := ParsedTask{Scheduler: strings.ToLower(r.Scheduler)}
	if err := add.parseService(&p); err != nil {
		return s, err
	}
	return p.Settings(s), nil
}

// Settings returns the settings of the task's service with what the request
// asks for.
func (p *ParsedTask) Settings(s state.Settings) state.Settings {
	if p.Mode != nil {
		s.Mode = *p.Mode
	}
	if p.Scheduler != "" {
		s.Scheduler = p.Scheduler
	}
	if p.TTL > 0 {
		s.TTL = p.TTL
	}
	return s
}

// parseTTL reads the TTL of a service's DNS answers; empty is 0.
func parseTTL(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > state.MaxTTL || d%time.Second != 0 {
		return 0, invalid("ttl", "write whole seconds from 1s to 1h, for example 2s", "%q is not a TTL of DNS answers", s)
	}
	return d, nil
}

// checkNames checks the names of e that have no check of their own.
func checkNames(e state.Endpoint) error {
	if e.ID != "" {
		if err := state.CheckName(e.ID); err != nil {
			return invalid("id", "use letters, digits, '-' and '_', or leave it out to have one made", "%s", reason(err))
		}
	}
	for _, f := range []struct{ field, value string }{{"hostname", e.Hostname}, {"name", e.Name}} {
		if f.value == "" {
			continue
		}
		if err := state.CheckTaskName(f.value); err != nil {
			return invalid(f.field, nameHint, "%s", reason(err))
		}
	}
	if err := checkAsked("hostname", e.Hostname); err != nil {
		return err
	}
	if len(e.Aliases) > state.MaxAliases {
		return invalid("aliases", "register fewer", "%d aliases, at most %d", len(e.Aliases), state.MaxAliases)
	}
	for _, a := range e.Aliases {
		if err := state.CheckTaskName(a); err != nil {
			return invalid("aliases", nameHint, "%s", reason(err))
		}
		if err := checkAsked("aliases", a); err != nil {
			return err
		}
	}
	return nil
}

// checkAsked refuses a name that programs take for an address, as 10.1.1.1 and, by
// inet_aton(3), 80 and 10.1: they would never ask for it.
func checkAsked(field, name string) error {
	if name == "" || strings.Trim(name, "0123456789.") != "" {
		return nil
	}
	return invalid(field, "put a letter in front, for example n"+name,
		"%q is taken for an address by programs, which never ask for it", name)
}

// reason is what package state says of a name, without the words that the
// field's name makes superfluous.
func reason(err error) string { return strings.TrimPrefix(err.Error(), "invalid: name: ") }

const nameHint = "use letters, digits, '-' and '_', with dots between labels"

// CheckName reports why s cannot be the name in a field of a request, as an
// *Error of CodeInvalid.
func CheckName(field, s string) error {
	if s == "" {
		return invalid(field, "name the "+field, "it is missing")
	}
	if err := state.CheckName(s); err != nil {
		if state.CheckNode(s) == nil { // a word that means something else
			return invalid(field, "choose another name", "%s", reason(err))
		}
		return invalid(field, "use at most 63 letters, digits, '-' and '_', without dots", "%s", reason(err))
	}
	return nil
}

// parseAddrs reads at most one address per family.
func parseAddrs(field string, in []string) (out []netip.Addr, err error) {
	for _, s := range in {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, invalid(field, "write an address without prefix length or port, for example 10.1.0.7 or fd00::7",
				"%q is not an IP address", s)
		}
		a = a.Unmap()
		if err := state.CheckTaskAddr(a); err != nil {
			return nil, invalidValue(field, err)
		}
		for _, b := range out {
			if a.Is4() == b.Is4() {
				return nil, invalid(field, "give at most one IPv4 and one IPv6 address", "%s and %s are of one family", b, a)
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// Parse checks the request and converts it. The error is an *Error of
// CodeInvalid that names the field and the fix. Birth is the caller's to fill.
func (r CreateNetwork) Parse() (state.NetworkDef, error) {
	def := state.NetworkDef{Name: strings.ToLower(r.Name)}
	if err := CheckName("name", def.Name); err != nil {
		return state.NetworkDef{}, err
	}
	if r.Subnet == "" && r.Subnet6 == "" {
		return state.NetworkDef{}, invalid("subnet",
			"give the pool of virtual IPs, for example 10.9.0.0/16, in subnet or subnet6", "a network needs a subnet")
	}
	var err error
	if def.Subnet4, err = parsePool("subnet", r.Subnet, state.IPv4); err != nil {
		return state.NetworkDef{}, err
	}
	if def.Subnet6, err = parsePool("subnet6", r.Subnet6, state.IPv6); err != nil {
		return state.NetworkDef{}, err
	}
	return def, nil
}

// parsePool reads a pool that may be left out.
func parsePool(field, s string, f state.Family) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := state.ParsePool(s, f)
	if err != nil {
		return netip.Prefix{}, invalidValue(field, err)
	}
	return p, nil
}

// Parse checks the addresses and returns them as HOST:PORT.
func (r JoinRequest) Parse() ([]string, error) {
	if len(r.Addresses) == 0 {
		return nil, invalid("addresses", "give the address of a member, for example 192.0.2.10:7946", "none is given")
	}
	if len(r.Addresses) > 64 {
		return nil, invalid("addresses", "a few are enough: the rest is learnt", "%d addresses, at most 64", len(r.Addresses))
	}
	out := make([]string, len(r.Addresses))
	for i, a := range r.Addresses {
		var err error
		if out[i], err = state.ParseHostPort(a); err != nil {
			return nil, invalidValue("addresses", err)
		}
	}
	return out, nil
}

// KeySize is the size of a gossip key in bytes (AES-256).
const KeySize = 32

// KeyID returns the short public name of a key: 12 hex digits of its hash.
func KeyID(key []byte) string {
	sum := sha256.Sum256(append([]byte("meshd key id\x00"), key...))
	return hex.EncodeToString(sum[:6])
}

// Parse returns the key, or, if the request names an installed key, its id.
// Exactly one of both is set without an error. The error never shows the key.
func (r KeyRequest) Parse() (key []byte, id string, err error) {
	s := strings.TrimSpace(r.Key)
	if b, err := base64.StdEncoding.DecodeString(s); err == nil {
		switch len(b) {
		case 16, 24, KeySize:
			return b, "", nil
		}
	}
	if b, err := hex.DecodeString(s); err == nil && len(b) == 6 {
		return nil, strings.ToLower(s), nil
	}
	return nil, "", invalid("key", `"meshctl keygen" makes a key; "meshctl key ls" shows the ids of those installed`,
		"it is neither a base64 key of 32 bytes nor a key id of 12 hex digits; of a file, write - < FILE")
}
