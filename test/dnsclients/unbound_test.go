//go:build linux

package dnsclients

// This file owns a recursive server between clients and meshd.

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// unboundConf is a recursive server before meshd that asks as strictly as it
// can: label by label, ending at the first NXDOMAIN, in random case.
const unboundConf = `server:
  interface: 127.0.0.1@5353
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "%[1]s"
  pidfile: ""
  use-syslog: no
  logfile: ""
  verbosity: 1
  module-config: "iterator"
  qname-minimisation: yes
  qname-minimisation-strict: yes
  use-caps-for-id: yes
  harden-below-nxdomain: yes
  do-not-query-localhost: no
  local-zone: "10.in-addr.arpa." nodefault
  num-threads: 1
remote-control:
  control-enable: no
stub-zone:
  name: "mesh.internal."
  stub-addr: %[2]s
stub-zone:
  name: "96.10.in-addr.arpa."
  stub-addr: %[2]s
`

// TestUnbound asks through unbound. Names that exist are asked for after names
// above them, which must not be denied (RFC 8020).
func TestUnbound(t *testing.T) {
	program, err := exec.LookPath("unbound")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/unbound"); err != nil {
			t.Skip("unbound: not installed")
		}
	}
	f := fleet.NewTest(t, 1)
	h := f.Rig.Hosts()[0]
	n := f.AddNode(h, []string{"--upstream", startUpstream(t, h).String()})
	must(t, n.Start(t.Context()))
	from, vip, tasks := populate(t, n)
	dir := t.TempDir()
	conf := filepath.Join(dir, "unbound.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, unboundConf, dir, from.DNS().Addr()), 0o644))
	p, err := from.Start("unbound", program, "-d", "-c", conf)
	must(t, err)
	t.Cleanup(p.Kill)
	reversed, err := dns.ReverseAddr(vip)
	must(t, err)
	const domain = ".collabnet.mesh.internal."
	for i, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"collabnet.mesh.internal.", dns.TypeSOA, "1 SOA"},
		{"collabnet.mesh.internal.", dns.TypeNS, "1 NS"},
		{"tasks" + domain, dns.TypeA, "NODATA"},
		{"tasks.web" + domain, dns.TypeA, strings.Join(tasks, " ")},
		{"nearest" + domain, dns.TypeTXT, "NODATA"},
		{"nearest.web" + domain, dns.TypeA, strings.Join(tasks, " ")},
		{"web" + domain, dns.TypeA, vip},
		{"web" + domain, dns.TypeAAAA, "NODATA"},
		{"web" + domain, dns.TypeHTTPS, "NODATA"},
		{"WEB" + domain, dns.TypeMX, "NODATA"},
		{"_tcp.dual" + domain, dns.TypeSRV, "NODATA"},
		{"_http._tcp.dual" + domain, dns.TypeSRV, "1 SRV"},
		{"dual1" + domain, dns.TypeA, "10.1.9.1"},
		{"1.dual1" + domain, dns.TypeA, "NODATA"},
		{"dual.1.dual1" + domain, dns.TypeAAAA, "fd21::9:1"},
		{"tasks.big" + domain, dns.TypeA, "60 A"},
		{"nothing" + domain, dns.TypeA, "NXDOMAIN"},
		{"below.nothing" + domain, dns.TypeA, "NXDOMAIN"},
		{"ns.mesh.internal.", dns.TypeA, from.DNS().Addr().String()},
		{reversed, dns.TypePTR, "1 PTR"},
		{"250.255.96.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		var got string
		err := rig.Poll(ctx, func() (err error) { // it takes a moment to start
			got, err = askThrough(ctx, from, c.name, c.qtype)
			if err != nil && i > 0 {
				got, err = err.Error(), nil
			}
			return err
		})
		cancel()
		if err != nil || got != c.want {
			t.Errorf("%s %s: %s, %v; want %s", c.name, dns.TypeToString[c.qtype], got, err, c.want)
		}
	}
}

// askThrough asks the unbound of the task over TCP.
func askThrough(ctx context.Context, from *fleet.Task, name string, qtype uint16) (string, error) {
	conn, err := from.Dial(ctx, "tcp", netip.MustParseAddrPort("127.0.0.1:5353").String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	c := dns.Client{Net: "tcp", Timeout: 10 * time.Second}
	r, _, err := c.ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion(name, qtype), &dns.Conn{Conn: conn})
	if err != nil {
		return "", err
	}
	var data []string
	for _, rr := range r.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			data = append(data, rr.A.String())
		case *dns.AAAA:
			data = append(data, rr.AAAA.String())
		}
	}
	slices.Sort(data)
	switch {
	case r.Rcode != dns.RcodeSuccess:
		return dns.RcodeToString[r.Rcode], nil
	case len(r.Answer) == 0:
		return "NODATA", nil
	case len(data) == 0 || len(data) > 8:
		return fmt.Sprintf("%d %s", len(r.Answer), dns.TypeToString[qtype]), nil
	}
	return strings.Join(data, " "), nil
}
