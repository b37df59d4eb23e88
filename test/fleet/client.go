//go:build linux

package fleet

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meshd/test/rig"
)

// patience bounds one query or request.
func patience() time.Duration { return rig.Patience(2 * time.Second) }

// Answer is the reply to a DNS query.
type Answer struct {
	RCode string   // NOERROR, NXDOMAIN, …
	Data  []string // of the answers: addresses, targets; sorted
	TTL   uint32   // of the first answer
	Took  time.Duration
}

// String is the answer in one line.
func (a Answer) String() string {
	switch {
	case a.RCode != "NOERROR":
		return a.RCode
	case len(a.Data) == 0:
		return "NODATA"
	}
	return strings.Join(a.Data, " ")
}

// Resolve asks the meshd of the task's host, from inside the task, over UDP. A
// bare name is asked as it is.
func (t *Task) Resolve(ctx context.Context, name string, qtype uint16) (Answer, error) {
	return t.ResolveOver(ctx, "udp", name, qtype)
}

// ResolveOver is Resolve over udp or tcp.
func (t *Task) ResolveOver(ctx context.Context, proto, name string, qtype uint16) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience())
	defer cancel()
	start := time.Now()
	c, err := t.Dial(ctx, proto, t.DNS().String())
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m, _, err := (&dns.Client{Net: proto, Timeout: patience()}).ExchangeWithConnContext(ctx, q, &dns.Conn{Conn: c})
	if err != nil {
		return Answer{}, fmt.Errorf("ask %s for %s: %w", t.DNS(), name, err)
	}
	return read(m, time.Since(start)), nil
}

func read(m *dns.Msg, took time.Duration) Answer {
	a := Answer{RCode: dns.RcodeToString[m.Rcode], Took: took}
	for i, rr := range m.Answer {
		if i == 0 {
			a.TTL = rr.Header().Ttl
		}
		a.Data = append(a.Data, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(a.Data)
	return a
}

// Get fetches http://addr/ from inside the task, over a new connection, and
// returns the body: the id of the task that served it.
func (t *Task) Get(ctx context.Context, addr netip.Addr) (string, error) {
	return Get(ctx, t.Namespace, addr)
}

// Get is [Task.Get] from inside any namespace, such as a host's.
func Get(ctx context.Context, from *rig.Namespace, addr netip.Addr) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience())
	defer cancel()
	url := "http://" + netip.AddrPortFrom(addr, TaskPort).String() + "/"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("get %s from %s: %w", url, from.Name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s from %s: %s", url, from.Name, resp.Status)
	}
	return strings.TrimSpace(string(body)), err
}

// Echo sends a datagram to addr from inside the task, from a new port, and
// returns the reply: the id of the task that served it.
func (t *Task) Echo(ctx context.Context, addr netip.Addr) (string, error) {
	c, err := t.Dial(ctx, "udp", netip.AddrPortFrom(addr, TaskPort).String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience()))
	if _, err := c.Write([]byte("who?")); err != nil {
		return "", err
	}
	buf := make([]byte, 256)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// Spread calls ask n times and counts the replies.
func Spread(n int, ask func() (string, error)) (map[string]int, error) {
	count := map[string]int{}
	for range n {
		id, err := ask()
		if err != nil {
			return count, err
		}
		count[id]++
	}
	return count, nil
}
