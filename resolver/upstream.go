package resolver

// This file owns the upstream servers: their list, their health, and one exchange
// with one of them.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	failsDown    = 3                // after so many failures in a row an upstream is asked last,
	downFor      = 10 * time.Second // for so long
	maxUpstreams = 8                // of a route
	maxTries     = 6                // of one question, unless there are more upstreams
	reloadEvery  = time.Second      // how often resolv.conf is looked at
)

// upstream is one server and its health. Safe for concurrent use.
type upstream struct {
	addr    netip.AddrPort
	downLog logLimit // of its failures: questions can make it fail and recover in turns

	mu      sync.Mutex // guards what follows
	fails   int        // in a row
	down    time.Time  // until then it is asked last
	looping bool       // it sends our questions back to us, and is not asked
	probe   time.Time  // when it is next probed for a loop
}

func (u *upstream) succeeded() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fails, u.down = 0, time.Time{}
}

// failed counts a failure and reports whether the upstream just went down.
func (u *upstream) failed(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fails++; u.fails < failsDown {
		return false
	}
	was := now.Before(u.down)
	u.down = now.Add(downFor)
	if !was {
		u.probe = now // a loop looks like a server that does not answer
	}
	return !was
}

// state says whether the upstream is to be asked.
func (u *upstream) state(now time.Time) UpstreamState {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.looping:
		return UpstreamLooping
	case now.Before(u.down):
		return UpstreamDown
	}
	return UpstreamUp
}

// UpstreamState says whether an upstream is asked.
type UpstreamState string

// The states of upstreams.
const (
	UpstreamUp      UpstreamState = "up"
	UpstreamDown    UpstreamState = "down"    // failed several times in a row: asked last
	UpstreamLooping UpstreamState = "looping" // sends our questions back to us: not asked
	UpstreamSelf    UpstreamState = "self"    // one of our own listeners: not asked
)

// UpstreamStatus is one upstream and what is known of it.
type UpstreamStatus struct {
	Addr   netip.AddrPort
	Domain string // whose names go there; "": all others
	State  UpstreamState
}

// upstreams is the list of servers, kept up with resolv.conf.
type upstreams struct {
	// Set once.
	domain string                  // whose names go there; "": all others
	cfg    ForwardConfig           // with its defaults
	log    *slog.Logger            // for changes of the list
	met    *metrics                // the server's
	own    func() []netip.AddrPort // the addresses of our listeners

	mu      sync.Mutex   // guards what follows
	list    []*upstream  // in the order of the configuration
	local   []netip.Addr // addresses of this host, for isOwn
	checked time.Time    // when resolv.conf was last looked at
	stamp   string       // its size and time of change then, see fileStamp
}

func newUpstreams(cfg ForwardConfig, log *slog.Logger, met *metrics, own func() []netip.AddrPort) *upstreams {
	return &upstreams{cfg: cfg, log: log, met: met, own: own}
}

// plan returns the upstreams to ask, in order, each twice but at most maxTries:
// the healthy ones in the order of the configuration, then the others. Servers
// that are ourselves, or send our questions back to us, are left out.
func (p *upstreams) plan(now time.Time) []*upstream {
	if p.cfg.Disabled {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reload(now)
	own := p.own()
	var up, down []*upstream
	for _, u := range p.list {
		switch state := u.state(now); {
		case state == UpstreamLooping, isOwn(u.addr, own, p.local):
			p.met.count(countLoops)
		case state == UpstreamDown:
			down = append(down, u)
		default:
			up = append(up, u)
		}
	}
	once := append(up, down...)
	plan := slices.Concat(once, once)
	return plan[:min(len(plan), max(maxTries, len(once)))]
}

// status lists the upstreams.
func (p *upstreams) status(now time.Time) []UpstreamStatus {
	if p.cfg.Disabled {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reload(now)
	var out []UpstreamStatus
	for _, u := range p.list {
		s := UpstreamStatus{Addr: u.addr, Domain: p.domain, State: u.state(now)}
		if isOwn(u.addr, p.own(), p.local) {
			s.State = UpstreamSelf
		}
		out = append(out, s)
	}
	return out
}

// due returns the upstreams whose time has come to be probed for a loop.
func (p *upstreams) due(now time.Time) (due []*upstream) {
	if p.cfg.Disabled {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reload(now)
	for _, u := range p.list {
		if !isOwn(u.addr, p.own(), p.local) && u.probeNow(now) {
			due = append(due, u)
		}
	}
	return due
}

// reload reads resolv.conf if it changed, at most once per reloadEvery. What
// cannot be read leaves the list as it is. The caller holds p.mu.
func (p *upstreams) reload(now time.Time) {
	if !p.checked.IsZero() && now.Sub(p.checked) < reloadEvery {
		return
	}
	first := p.checked.IsZero()
	p.checked = now
	if len(p.cfg.Upstreams) > 0 {
		if first {
			p.replace(p.cfg.Upstreams)
		}
		return
	}
	stamp := fileStamp(p.cfg.ResolvConf)
	if stamp == p.stamp {
		return
	}
	p.stamp = stamp
	servers, err := ReadServers(p.cfg.ResolvConf)
	if err != nil {
		p.log.Warn("dns upstreams stay as they were: resolv.conf cannot be read", "error", err)
		return
	}
	p.replace(servers)
	p.log.Info("dns upstreams read", "file", p.cfg.ResolvConf, "servers", servers)
}

// replace sets the list, keeping the health of servers that stay.
func (p *upstreams) replace(servers []netip.AddrPort) {
	old := p.list
	p.list = nil
	for _, s := range servers[:min(len(servers), maxUpstreams)] {
		u := &upstream{addr: s}
		if i := slices.IndexFunc(old, func(o *upstream) bool { return o.addr == s }); i >= 0 {
			u = old[i]
		}
		p.list = append(p.list, u)
	}
	p.local = localAddrs()
}

func fileStamp(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return "absent"
	}
	return fmt.Sprint(fi.Size(), fi.ModTime().UnixNano())
}

// maxResolvConf bounds a resolv.conf, in bytes: 8 servers need a few lines.
const maxResolvConf = 1 << 20

// ReadServers returns the name servers of a resolv.conf, a plain file of at most
// 1 MiB: a pipe in its place would be waited for without an end.
func ReadServers(path string) ([]netip.AddrPort, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read resolv.conf: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxResolvConf) {
		err = fmt.Errorf("%s is not a plain file of at most %d bytes", path, maxResolvConf)
	}
	if err != nil {
		return nil, fmt.Errorf("read resolv.conf: %w", err)
	}
	conf, err := dns.ClientConfigFromReader(io.LimitReader(f, maxResolvConf))
	if err != nil {
		return nil, fmt.Errorf("read resolv.conf: %w", err)
	}
	port, err := strconv.ParseUint(conf.Port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("read resolv.conf: port %q: %w", conf.Port, err)
	}
	var out []netip.AddrPort
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(strings.TrimSpace(s)); err == nil {
			out = append(out, netip.AddrPortFrom(a, uint16(port)))
		}
	}
	return out, nil
}

func localAddrs() []netip.Addr {
	var out []netip.Addr
	ifaddrs, _ := net.InterfaceAddrs()
	for _, a := range ifaddrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// isOwn reports whether a server is one of our listeners: forwarding to it
// would loop. A listener on the unspecified address is every local address.
func isOwn(server netip.AddrPort, own []netip.AddrPort, local []netip.Addr) bool {
	a := server.Addr().Unmap()
	here := a.IsLoopback() || a.IsUnspecified() || slices.Contains(local, a)
	for _, o := range own {
		oa := o.Addr().Unmap()
		if o.Port() == server.Port() && (oa == a || here && (oa.IsUnspecified() || a.IsUnspecified())) {
			return true
		}
	}
	return false
}

// exchange asks a server once from a socket of its own, so that id and source
// port are random (RFC 5452). Replies to anything else are ignored.
func exchange(ctx context.Context, server netip.AddrPort, tcp bool, m *dns.Msg) (*dns.Msg, error) {
	network := "udp"
	if tcp {
		network = "tcp"
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	m.Id = dns.Id()
	co := &dns.Conn{Conn: c, UDPSize: 4096}
	if err := co.WriteMsg(m); err != nil {
		return nil, err
	}
	for {
		b, err := co.ReadMsgHeader(nil)
		if err != nil && (tcp || !errors.Is(err, dns.ErrShortRead)) {
			return nil, err
		}
		if r, err := parseReply(m, b); r != nil || err != nil {
			return r, err
		}
		if tcp { // only the server can write into the connection
			return nil, dns.ErrId
		}
	}
}

// parseReply reads a packet that may be the reply to m. It returns nil and no
// error for a packet that is none, which is to be ignored (RFC 5452 §9.1). A
// truncated reply may end anywhere: then it is one without records.
func parseReply(m *dns.Msg, b []byte) (*dns.Msg, error) {
	const qr, tc = 0x80, 0x02
	if len(b) < 12 || binary.BigEndian.Uint16(b) != m.Id || b[2]&qr == 0 {
		return nil, nil
	}
	r := new(dns.Msg)
	if err := unpackVerified(r, b); err != nil {
		if b[2]&tc == 0 || len(r.Question) != 1 {
			return nil, fmt.Errorf("unreadable reply: %w", err)
		}
		r.Truncated, r.Answer, r.Ns, r.Extra = true, nil, nil, nil
	}
	if !isReplyTo(m, r) {
		return nil, nil
	}
	return r, nil
}

// unpackVerified unpacks b into r, and reports an error also if what is packed
// from r could not be unpacked: the library accepts empty data for every type,
// and packs that as a record that cannot be read.
func unpackVerified(r *dns.Msg, b []byte) error {
	if err := r.Unpack(b); err != nil {
		return err
	}
	again, err := r.Pack()
	if err != nil {
		return err
	}
	return new(dns.Msg).Unpack(again)
}

// isReplyTo reports whether r is a reply to m.
func isReplyTo(m, r *dns.Msg) bool {
	if !r.Response || r.Id != m.Id {
		return false
	}
	if len(r.Question) == 0 { // some servers omit it in errors
		return r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError
	}
	x, y := m.Question[0], r.Question[0]
	return len(r.Question) == 1 && x.Qtype == y.Qtype && x.Qclass == y.Qclass && strings.EqualFold(x.Name, y.Name)
}
