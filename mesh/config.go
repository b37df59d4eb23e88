package mesh

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/resolver"
	"meshd/state"
)

// Config is the configuration of one node, from a YAML file or flags of the
// same names. The zero value of an optional field means its default.
type Config struct {
	Node      string   `yaml:"node"`      // unique, persistent name; default: the host's name
	Bind      string   `yaml:"bind"`      // gossip, IP[:PORT]; default 0.0.0.0:7946
	Advertise string   `yaml:"advertise"` // IP that others dial; default: bind, or a private address of the host
	Join      []string `yaml:"join"`      // seeds, IP[:PORT] or HOST[:PORT]
	DataDir   string   `yaml:"data-dir"`  // default /var/lib/meshd
	Socket    string   `yaml:"socket"`    // control API; default /run/meshd/meshd.sock
	DNS       []string `yaml:"dns"`       // where to answer, IP:PORT; none: no DNS
	LB        string   `yaml:"lb"`        // auto, ipvs, nft, none
	LBVerify  Duration `yaml:"lb-verify"` // how often the kernel's load balancing is compared with the table; default 30s
	KeyFile   string   `yaml:"key-file"`  // one base64 key a line, the primary first; none: no encryption
	Domain    string   `yaml:"domain"`    // default mesh.internal.
	Profile   string   `yaml:"profile"`   // lan, wan, local: how fast failures are noticed
	Networks  []string `yaml:"networks"`  // to take part in without tasks, as a gateway does
	TTL       Duration `yaml:"ttl"`       // of DNS answers; default 5s
	Upstream  []string `yaml:"upstream"`  // DNS servers for other names, IP[:PORT], or of a domain, DOMAIN=IP[:PORT]; default: /etc/resolv.conf
	QueryLog  int      `yaml:"query-log"` // log one of so many DNS questions; 0: none
	LogLevel  string   `yaml:"log-level"` // debug, info, warn, error
	LogFormat string   `yaml:"log-format"`

	Reservation Duration `yaml:"reservation"` // how long a service without tasks keeps its VIP; default 24h
	D1          Duration `yaml:"d1"`          // a dead node's records are offered to others for that long; default 30m
	Preserve    float64  `yaml:"preserve"`    // share of vanished members from which their endpoints stay served; default 0.6
	PushRate    int      `yaml:"push-rate"`   // bytes per second of pushed changes; default 4194304
	MaxTasks    int      `yaml:"max-tasks"`   // of this node per network; default 200000
}

// Duration is a time.Duration that YAML writes as 1m30s.
type Duration time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || v < 0 {
		return fmt.Errorf("line %d: %q is not a duration; write 5s, 10m or 24h", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

const (
	defaultPort    = 7946
	defaultDataDir = "/var/lib/meshd"
)

// list is a comma-separated flag that may be repeated.
// The first use replaces what the configuration file said.
type list struct {
	to  *[]string
	set *bool
}

func (l list) String() string {
	if l.to == nil {
		return ""
	}
	return strings.Join(*l.to, ",")
}

func (l list) Set(s string) error {
	if !*l.set {
		*l.set, *l.to = true, nil
	}
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			*l.to = append(*l.to, v)
		}
	}
	return nil
}

func newList(to *[]string) list { return list{to, new(bool)} }

type durationFlag struct{ to *Duration }

func (d durationFlag) String() string {
	if d.to == nil {
		return ""
	}
	return time.Duration(*d.to).String()
}

func (d durationFlag) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return errors.New("write 5s, 10m or 24h")
	}
	*d.to = Duration(v)
	return nil
}

// RegisterFlags adds a flag for every field.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&c.Node, "node", c.Node, "unique, persistent `NAME` of this node (default: the host's name)")
	f.StringVar(&c.Bind, "bind", c.Bind, "gossip on `IP[:PORT]`, UDP and TCP (default 0.0.0.0:7946)")
	f.StringVar(&c.Advertise, "advertise", c.Advertise, "`IP` that other nodes dial (default: the bind address)")
	f.Var(newList(&c.Join), "join", "nodes to join, `IP:PORT[,…]`; some of any age are enough")
	f.StringVar(&c.DataDir, "data-dir", c.DataDir, "`DIR` for registrations, peers and the incarnation (default "+defaultDataDir+")")
	f.StringVar(&c.Socket, "socket", c.Socket, "`PATH` of the control socket (default "+control.DefaultSocket+")")
	f.Var(newList(&c.DNS), "dns", "answer DNS on `IP:PORT[,…]`, UDP and TCP (default: no DNS)")
	f.StringVar(&c.LB, "lb", c.LB, "load balancer: `auto|ipvs|nft|none` (default auto)")
	f.Var(durationFlag{&c.LBVerify}, "lb-verify", "compare the kernel's load balancing with the table, and repair it, every `DURATION` (default 30s)")
	f.StringVar(&c.KeyFile, "key-file", c.KeyFile, "`FILE` with the gossip keys in base64, one a line, the primary first (meshctl keygen)")
	f.StringVar(&c.Domain, "domain", c.Domain, "`DOMAIN` of the qualified names (default "+resolver.DefaultDomain+")")
	f.StringVar(&c.Profile, "profile", c.Profile, "failure detection for `lan|wan|local` (default lan)")
	f.Var(newList(&c.Networks), "networks", "`NETWORKS` to take part in without a task, for a gateway")
	f.Var(durationFlag{&c.TTL}, "ttl", "`TTL` of DNS answers (default 5s)")
	f.Var(newList(&c.Upstream), "upstream", "DNS servers for other names, `[DOMAIN=]IP[:PORT][,…]`; with a domain, for its names only (default: /etc/resolv.conf)")
	f.IntVar(&c.QueryLog, "query-log", c.QueryLog, "log one of `N` DNS questions (default: none)")
	f.StringVar(&c.LogLevel, "log-level", c.LogLevel, "`debug|info|warn|error` (default info)")
	f.StringVar(&c.LogFormat, "log-format", c.LogFormat, "`text|json` (default text)")
	f.Var(durationFlag{&c.Reservation}, "reservation", "how long a service without tasks keeps its VIP (default 24h)")
	f.Var(durationFlag{&c.D1}, "d1", "how long a dead node's records are offered to others; twice that, they are dropped (default 30m)")
	f.Float64Var(&c.Preserve, "preserve", c.Preserve, "`SHARE` of members whose vanishing at once keeps them served (default 0.6)")
	f.IntVar(&c.PushRate, "push-rate", c.PushRate, "`BYTES` per second of pushed changes (default 4194304)")
	f.IntVar(&c.MaxTasks, "max-tasks", c.MaxTasks, "`TASKS` of this node per network (default 200000)")
}

// ReadConfig reads a YAML file. An unknown name is an error with its line.
func ReadConfig(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("config: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("config %s: %w", path, err)
	}
	return c, nil
}

// settled is a Config after validation.
type settled struct {
	Config
	bind      netip.AddrPort
	advertise netip.Addr
	dns       []netip.AddrPort
	upstream  []netip.AddrPort
	upstreams map[string][]netip.AddrPort // of domains with servers of their own
	keys      [][]byte
}

// settle fills defaults and checks every field; the error names the field and
// what to write instead.
func (c Config) settle() (*settled, error) {
	if c.Node == "" {
		c.Node, _ = os.Hostname()
	}
	c.Node = strings.ToLower(c.Node)
	c = c.WithDefaults()
	s := &settled{Config: c}
	if err := state.CheckName(c.Node); err != nil {
		return nil, fmt.Errorf("node: %w; give --node NAME", err)
	}
	for _, f := range []func() error{s.addresses, s.choices, s.readKeys} {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// WithDefaults returns the configuration with the defaults of addresses, paths
// and names filled in, but for the node's own.
func (c Config) WithDefaults() Config {
	fill(&c.Bind, "0.0.0.0")
	fill(&c.DataDir, defaultDataDir)
	fill(&c.Socket, control.DefaultSocket)
	fill(&c.LB, "auto")
	fill(&c.Domain, resolver.DefaultDomain)
	return c
}

func fill(p *string, v string) {
	if *p == "" {
		*p = v
	}
}

func (s *settled) addresses() (err error) {
	if s.bind, err = addrPort(s.Bind, defaultPort); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if s.Advertise != "" {
		if s.advertise, err = netip.ParseAddr(s.Advertise); err != nil {
			return fmt.Errorf("advertise: %q is not an IP address", s.Advertise)
		}
	}
	for _, a := range s.DNS {
		p, err := addrPort(a, 53)
		if err != nil {
			return fmt.Errorf("dns: %w", err)
		}
		s.dns = append(s.dns, p)
	}
	if err := s.readUpstreams(); err != nil {
		return err
	}
	for i, j := range s.Join {
		if !strings.Contains(j, ":") || strings.Count(j, ":") > 1 && !strings.HasPrefix(j, "[") {
			j = strings.Trim(j, "[]")
			if strings.Contains(j, ":") {
				j = "[" + j + "]"
			}
			s.Join[i] = j + ":" + strconv.Itoa(defaultPort)
		}
	}
	return nil
}

// addrPort reads IP or IP:PORT.
func addrPort(s string, port uint16) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, port), nil
	}
	p, err := netip.ParseAddrPort(s)
	if err != nil {
		return p, fmt.Errorf("%q is not IP:PORT; write 10.0.0.1:%d or [fd00::1]:%d", s, port, port)
	}
	return p, nil
}

func (s *settled) choices() error {
	for _, c := range []struct{ field, value, allowed string }{
		{"lb", s.LB, "auto ipvs nft none"},
		{"profile", s.Profile, " lan wan local"},
		{"log-level", s.LogLevel, " debug info warn error"},
		{"log-format", s.LogFormat, " text json"},
	} {
		if !slices.Contains(strings.Split(c.allowed, " "), c.value) {
			return fmt.Errorf("%s: %q; use one of:%s", c.field, c.value, strings.ReplaceAll(" "+strings.TrimSpace(c.allowed), " ", " "))
		}
	}
	switch {
	case s.Preserve < 0 || s.Preserve > 1:
		return fmt.Errorf("preserve: %v is not a share from 0 to 1", s.Preserve)
	case s.PushRate < 0 || s.PushRate > 0 && s.PushRate < 16<<10:
		return fmt.Errorf("push-rate: %d; at least 16384 bytes per second", s.PushRate)
	case s.QueryLog < 0:
		return fmt.Errorf("query-log: %d; use 1 for every question, N for one of N, 0 for none", s.QueryLog)
	case s.MaxTasks < 0:
		return fmt.Errorf("max-tasks: %d is negative", s.MaxTasks)
	case s.LBVerify != 0 && time.Duration(s.LBVerify) < time.Second, time.Duration(s.LBVerify) > time.Hour:
		return fmt.Errorf("lb-verify: %v; use 1s to 1h, changes by others stay that long", time.Duration(s.LBVerify))
	case time.Duration(s.TTL) >= time.Hour:
		return fmt.Errorf("ttl: %v; at most an hour, clients would keep dead addresses", time.Duration(s.TTL))
	}
	for _, n := range s.Networks {
		if err := state.CheckName(n); err != nil {
			return fmt.Errorf("networks: %w", err)
		}
	}
	return nil
}

func (s *settled) readKeys() error {
	if s.KeyFile == "" {
		return nil
	}
	b, err := os.ReadFile(s.KeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("key-file: %s does not exist; make it with: meshctl keygen > %s", s.KeyFile, s.KeyFile)
	}
	if err != nil {
		return fmt.Errorf("key-file: %w", err)
	}
	s.keys, err = ParseKeys(string(b))
	if err != nil {
		return fmt.Errorf("key-file %s: %w", s.KeyFile, err)
	}
	return nil
}

// ParseKeys reads keys in base64, one a line; empty lines and those that start
// with # are skipped. The first is the one to encrypt with.
func ParseKeys(text string) ([][]byte, error) {
	var keys [][]byte
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(k) != 16 && len(k) != 24 && len(k) != 32 {
			return nil, fmt.Errorf("line %d is not a base64 key of 16, 24 or 32 bytes; make one with: meshctl keygen", n)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("holds no key; make one with: meshctl keygen")
	}
	return keys, nil
}

// core returns the protocol's settings.
func (s *settled) core() gossip.CoreConfig {
	return gossip.CoreConfig{
		D1: time.Duration(s.D1), Preserve: s.Preserve, PushRate: s.PushRate,
		Reservation: time.Duration(s.Reservation), BeaconEvery: 10 * time.Second,
	}
}

func (s *settled) limits() state.Limits {
	l := state.DefaultLimits()
	if s.MaxTasks > 0 {
		l.Entries = s.MaxTasks * 2
	}
	return l
}
