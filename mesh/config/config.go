// Package config is what people write for one node: flags and a file, the checks of each
// value with its position and what to write instead, and which settings a running node
// takes over (N1).
//
// It reads files and the host's addresses, groups and memory, and changes nothing: a
// configuration that is refused has touched nothing. What the settings mean to a part is
// the part's; package mesh hands them on.
package config

import (
	"flag"
	"time"

	"meshd/mesh/control"
	"meshd/resolver"
	"meshd/state"
)

// Config is the configuration of one node. People write it as flags, or as a YAML file
// with the flags' names: see RegisterFlags and Read. The zero value of a field means its
// default. Check says whether a Config can work.
type Config struct {
	// Who the node is, and where the others are.

	Node      string   // unique, persistent name; default: the host's name
	Bind      string   // where to gossip, IP[:PORT]; default 0.0.0.0:7946
	Advertise string   // IP that other nodes dial; default: Bind, or a private address of the host
	Join      []string // seeds, IP[:PORT] or HOST[:PORT]
	KeyFile   string   // one base64 key a line, the primary first; see package keys
	Insecure  bool     // gossip without a key on more than loopback
	Profile   string   // how fast failures are noticed: lan, wan, local
	Networks  []string // to take part in without tasks, as a gateway does

	// The host: files, the API and the log.

	DataDir     string        // default /var/lib/meshd
	Socket      string        // path of the control API's socket; default /run/meshd/meshd.sock
	SocketGroup string        // name or number; default: the group of the process
	LogLevel    string        // debug, info, warn, error
	LogFormat   string        // text, json
	LogDropped  func() uint64 `yaml:"-"` // how many log lines were dropped so far; nil: none is

	// DNS.

	DNS        []string // where to answer, IP[:PORT]; none: no DNS
	DNSClients []string // whom to answer besides this host and its tasks, CIDR or IP; none: the host's subnets
	Domain     string   // of qualified names; default mesh.internal.
	TTL        Duration // of answers; default 5s
	Upstream   []string // servers for other names, [DOMAIN=]IP[:PORT]; default: /etc/resolv.conf
	QueryLog   int      // log one of so many questions; 0: none

	// Load balancing.

	LB       string   // auto, ipvs, nft, none
	LBVerify Duration // how often the kernel is compared with the table; default 30s
	Pools    []string // CIDRs within which VIP pools are taken here; default: the private ranges
	// Forwarding is auto: the host forwards packets; devices: those devices do that lead to
	// containers and other hosts; off: the host's administrator sees to that.
	Forwarding string
	// Firewall is tell: what firewalls drop is said; accept: rules are added to them.
	Firewall string

	// Sources of tasks.

	Docker string // auto: of an engine of this host, if there is one; off; or the path of its socket

	// Bounds and times.

	Reservation Duration // how long a service without tasks keeps its VIP; default 24h
	D1          Duration // how long a dead node's records are offered to others; default 30m
	Preserve    float64  // share of vanished members from which their endpoints stay served; default 0.6
	PushRate    int      // bytes per second of pushed changes; default 4194304
	MaxTasks    int      // tasks of this node, over all networks; default 200000
	TableMemory int      // bytes for what all nodes state; default: a share of the host's memory (S19)

	AllowLoopbackTasks bool // tasks may be registered at 127.0.0.1 or ::1, for trials on one host
}

// Duration is a time.Duration that people write as 1m30s.
type Duration time.Duration

const (
	defaultPort    = state.DefaultPort
	defaultDataDir = "/var/lib/meshd"
)

// RegisterFlags adds a flag for every field. The flag checks its value, so a value from
// the command line and one from a file meet the same rules.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.Var(text{&c.Node}, "node", "unique, persistent `NAME` of this node (default: the host's name)")
	f.Var(text{&c.Bind}, "bind", "gossip on `IP[:PORT]`, UDP and TCP (default 0.0.0.0:7946)")
	f.Var(text{&c.Advertise}, "advertise",
		"`IP` that other nodes dial (default: bind, or a private address of the host where that is 0.0.0.0 or ::)")
	f.Var(newList(&c.Join), "join", "nodes to join, `IP[:PORT][,…]`; some of any age are enough")
	f.Var(text{&c.DataDir}, "data-dir", "`DIR` for registrations, peers and the incarnation (default "+defaultDataDir+")")
	f.Var(text{&c.Socket}, "socket", "`PATH` of the control socket (default "+control.DefaultSocket+")")
	f.Var(text{&c.SocketGroup}, "socket-group",
		"`GROUP` whose members may use the control socket (default: the group of meshd)")
	f.Var(newList(&c.DNS), "dns", "answer DNS on `IP[:PORT][,…]`, UDP and TCP (default: no DNS)")
	f.Var(newBounds(&c.DNSClients), "dns-clients",
		"whom to answer there, `CIDR[,…]`, besides this host and its tasks (default: the subnets that this host is "+
			"connected to)")
	f.Var(text{&c.LB}, "lb", "load balancer: `auto|ipvs|nft|none` (default auto)")
	f.Var(text{&c.Forwarding}, "forwarding",
		"`auto|devices|off`: let the host forward packets, as containers that connect to VIPs need; only the devices of "+
			"its containers and those that lead to other hosts; or leave its sysctls alone (default auto)")
	f.Var(text{&c.Firewall}, "firewall",
		"`tell|accept`: say which firewall of this host drops connections to VIPs, or add a rule to it that lets them "+
			"through (default tell)")
	f.Var(newBounds(&c.Pools), "pools",
		"take VIP pools within `CIDR[,…]` only (default: private ranges: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, "+
			"100.64.0.0/10, 198.18.0.0/15, fc00::/7)")
	f.Var(span{&c.LBVerify, time.Second, time.Hour}, "lb-verify",
		"compare the kernel's load balancing with the table, and repair it, every `DURATION` (default 30s); what others "+
			"are seen to do to it, at once")
	f.Var(text{&c.KeyFile}, "key-file",
		"`FILE` with the gossip keys in base64, one a line, the primary first (meshctl keygen)")
	f.Var(toggle{&c.Insecure}, "insecure", "gossip without a key, open to everybody who reaches the address of --bind")
	f.Var(text{&c.Domain}, "domain", "`DOMAIN` of the qualified names (default "+resolver.DefaultDomain+")")
	f.Var(text{&c.Profile}, "profile", "failure detection for `lan|wan|local` (default lan)")
	f.Var(newList(&c.Networks), "networks", "`NETWORKS` to take part in without a task, for a gateway")
	f.Var(span{&c.TTL, time.Second, time.Hour}, "ttl", "`TTL` of DNS answers (default 5s)")
	f.Var(newList(&c.Upstream), "upstream",
		"DNS servers for other names, `[DOMAIN=]IP[:PORT][,…]`; with a domain, for its names only (default: "+
			"/etc/resolv.conf)")
	f.Var(number{&c.QueryLog, 0, 1 << 30}, "query-log", "log one of `N` DNS questions (default: none)")
	f.Var(text{&c.LogLevel}, "log-level", "`debug|info|warn|error` (default info)")
	f.Var(text{&c.LogFormat}, "log-format", "`text|json` (default text)")
	f.Var(text{&c.Docker}, "docker",
		"`auto|off|PATH`: register containers by their labels, of the engine at the socket PATH; auto: at /run/docker.sock "+
			"or /run/podman/podman.sock, if there is one (default auto)")
	f.Var(span{&c.Reservation, time.Minute, 365 * 24 * time.Hour}, "reservation",
		"how long a service without tasks keeps its VIP, a `DURATION` (default 24h)")
	f.Var(span{&c.D1, time.Minute, 72 * time.Hour}, "d1",
		"how long a dead node's records are offered to others, a `DURATION`; after twice that, they are dropped "+
			"(default 30m)")
	f.Var(share{&c.Preserve}, "preserve", "`SHARE` of members whose vanishing at once keeps them served (default 0.6)")
	f.Var(number{&c.PushRate, minPushRate, 1 << 30}, "push-rate", "`BYTES` per second of pushed changes (default 4194304)")
	f.Var(number{&c.MaxTasks, 1, maxTasks}, "max-tasks", "`TASKS` of this node, over all networks (default 200000)")
	f.Var(size{&c.TableMemory, state.MinTableMemory, maxTableMemory}, "table-memory",
		"`SIZE` of memory for what all nodes of the mesh state; what is over it is refused (default: a quarter of what "+
			"the host, its control group or GOMEMLIMIT gives, at most 4GiB)")
	f.Var(toggle{&c.AllowLoopbackTasks}, "allow-loopback-tasks",
		"take tasks at 127.0.0.1 and ::1, which lead to each host's own; for trials on one host")
}

// WithDefaults returns the configuration with the defaults of addresses, paths and names
// filled in, but for the node's own name.
func (c Config) WithDefaults() Config {
	setDefault(&c.Bind, "0.0.0.0")
	setDefault(&c.DataDir, defaultDataDir)
	setDefault(&c.Socket, control.DefaultSocket)
	setDefault(&c.LB, "auto")
	setDefault(&c.Forwarding, "auto")
	setDefault(&c.Firewall, "tell")
	setDefault(&c.Docker, DockerAuto)
	setDefault(&c.Domain, resolver.DefaultDomain)
	return c
}

// setDefault fills in an empty value.
func setDefault(p *string, v string) {
	if *p == "" {
		*p = v
	}
}
