package resolver

// This file owns the configuration of forwarding: defaults and checks.

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ForwardConfig configures the forwarding of names that are not ours (R7). The
// zero value forwards to the upstreams of /etc/resolv.conf.
type ForwardConfig struct {
	// Servers.

	Disabled   bool             // forward nothing: names that are not ours are SERVFAIL
	ResolvConf string           // a file with name servers, read again when it changes; "": /etc/resolv.conf
	Upstreams  []netip.AddrPort // instead of ResolvConf's
	// Domains have servers of their own: names at and under such a domain go to
	// them only, the longest domain first. Names of the mesh stay local.
	Domains map[string][]netip.AddrPort

	// Time. At most a minute each.

	Hedge      time.Duration // how long an upstream may take before the next is asked too; 0: 300 ms
	TryTimeout time.Duration // of one exchange with one upstream; 0: 2 s
	Timeout    time.Duration // of all tries of one question; 0: 4.5 s, under the 5 s of stub resolvers

	// Questions that wait for upstreams at once. More are dropped.

	Max       int // in all; the last quarter is for TCP; 0: 4096
	MaxClient int // of one client, as in Config.ClientRate; 0: 512

	// The cache of upstream answers.

	CacheEntries int           // 0: 10,000; negative: no cache
	CacheBytes   int           // packed size of the answers; 0: 16 MiB
	MaxTTL       time.Duration // how long an answer stays fresh at most; 0: 30 s
	MaxNegative  time.Duration // the same for NXDOMAIN and NODATA; 0: 5 s
	Stale        time.Duration // how long an expired answer may be given (RFC 8767); 0: 1 h; negative: not at all

	// Exchange asks one upstream once. It sets the message's id, checks the
	// reply's, and must return when ctx ends. nil: sockets with random ports.
	Exchange func(ctx context.Context, server netip.AddrPort, tcp bool, m *dns.Msg) (*dns.Msg, error)
}

func (c ForwardConfig) withDefaults() (ForwardConfig, error) {
	c.ResolvConf = cmp.Or(c.ResolvConf, "/etc/resolv.conf")
	c.Hedge = cmp.Or(c.Hedge, 300*time.Millisecond)
	c.TryTimeout, c.Timeout = cmp.Or(c.TryTimeout, 2*time.Second), cmp.Or(c.Timeout, 4500*time.Millisecond)
	c.Max, c.MaxClient = cmp.Or(c.Max, 4096), cmp.Or(c.MaxClient, 512)
	c.CacheEntries, c.CacheBytes = cmp.Or(c.CacheEntries, 10_000), cmp.Or(c.CacheBytes, 16<<20)
	c.MaxTTL, c.MaxNegative = cmp.Or(c.MaxTTL, 30*time.Second), cmp.Or(c.MaxNegative, 5*time.Second)
	c.Stale = cmp.Or(c.Stale, time.Hour)
	if c.Exchange == nil {
		c.Exchange = exchange
	}
	if err := checkServers("Upstreams", c.Upstreams); err != nil {
		return c, err
	}
	if err := c.checkDomains(); err != nil {
		return c, err
	}
	for name, d := range map[string]time.Duration{"Hedge": c.Hedge, "TryTimeout": c.TryTimeout, "Timeout": c.Timeout} {
		if d < 0 || d > time.Minute {
			return c, fmt.Errorf("%w: Forward.%s: %s; use 0 to 1m", ErrConfig, name, d)
		}
	}
	return c, nil
}

func checkServers(field string, servers []netip.AddrPort) error {
	for _, u := range servers {
		if !u.IsValid() || u.Port() == 0 {
			return fmt.Errorf("%w: Forward.%s: %q; use an address with a port such as 192.0.2.53:53", ErrConfig, field, u)
		}
	}
	return nil
}

// maxDomains bounds the domains with upstreams of their own.
const maxDomains = 64

func (c *ForwardConfig) checkDomains() error {
	if len(c.Domains) > maxDomains {
		return fmt.Errorf("%w: Forward.Domains: %d; at most %d", ErrConfig, len(c.Domains), maxDomains)
	}
	for d, servers := range c.Domains {
		if _, ok := dns.IsDomainName(d); !ok || fold(d) == "" || strings.Contains(d, "\\") {
			return fmt.Errorf("%w: Forward.Domains: %q is not a domain name; use one like corp.example", ErrConfig, d)
		}
		if len(servers) == 0 {
			return fmt.Errorf("%w: Forward.Domains: %s has no server; give one or leave the domain out", ErrConfig, d)
		}
		if err := checkServers("Domains "+d, servers); err != nil {
			return err
		}
	}
	return nil
}
