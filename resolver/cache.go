package resolver

// This file owns the cache of upstream answers.

import (
	"container/list"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// cacheKey identifies questions that one upstream answer serves.
type cacheKey struct {
	name       string // lower case
	qtype      uint16
	do, cd, rd bool
	ad         bool
}

func keyOf(q *dns.Msg) cacheKey {
	o := q.IsEdns0()
	return cacheKey{
		name: strings.ToLower(q.Question[0].Name), qtype: q.Question[0].Qtype,
		do: o != nil && o.Do(), cd: q.CheckingDisabled, rd: q.RecursionDesired, ad: q.AuthenticatedData,
	}
}

// cache keeps upstream answers. The least recently used ones make room for others.
// Safe for concurrent use.
type cache struct {
	maxEntries, maxBytes int

	mu      sync.Mutex // guards what follows
	entries map[cacheKey]*list.Element
	order   *list.List // of *cached, the most recently used first
	bytes   int
}

type cached struct {
	key     cacheKey
	msg     *dns.Msg // never changed
	stored  time.Time
	fresh   time.Time // until then it is given as it is
	stale   time.Time // until then it may be given when no upstream answers
	recheck time.Time // until then no upstream is asked for it, since they just failed
	size    int       // in bytes
}

// hit is what the cache has for a question; a nil msg is nothing.
type hit struct {
	msg            *dns.Msg // do not change
	age            time.Duration
	fresh          bool
	recheckPending bool // the upstreams failed just now and are not asked again yet
}

func newCache(maxEntries, maxBytes int) *cache {
	return &cache{maxEntries: maxEntries, maxBytes: maxBytes, entries: map[cacheKey]*list.Element{}, order: list.New()}
}

// get returns the answer for a key.
func (c *cache) get(key cacheKey, now time.Time) hit {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[key]
	if el == nil {
		return hit{}
	}
	e := el.Value.(*cached)
	if !now.Before(e.stale) {
		c.remove(el)
		return hit{}
	}
	c.order.MoveToFront(el)
	return hit{e.msg, now.Sub(e.stored), now.Before(e.fresh), now.Before(e.recheck)}
}

// setRecheck sets the failure recheck timer of an answer (RFC 8767 §5): until then
// it is given, although stale, without asking an upstream. It reports whether
// there is an answer to give.
func (c *cache) setRecheck(key cacheKey, until time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[key]
	if el == nil || el.Value.(*cached).msg.Rcode == dns.RcodeServerFailure {
		return false
	}
	el.Value.(*cached).recheck = until
	return true
}

// put stores m, which the cache owns from then on, as fresh for ttl and usable
// as stale for as long as stale after that.
func (c *cache) put(key cacheKey, m *dns.Msg, now time.Time, ttl, stale time.Duration) {
	e := &cached{key: key, msg: m, stored: now, fresh: now.Add(ttl), stale: now.Add(ttl + stale), size: m.Len() +
		len(key.name)}
	if c.maxEntries <= 0 || e.size > c.maxBytes/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.entries[key]; el != nil {
		c.remove(el)
	}
	c.entries[key] = c.order.PushFront(e)
	c.bytes += e.size
	for len(c.entries) > c.maxEntries || c.bytes > c.maxBytes {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(el *list.Element) {
	e := c.order.Remove(el).(*cached)
	delete(c.entries, e.key)
	c.bytes -= e.size
}

func (c *cache) size() (entries, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries), c.bytes
}

// lifetime returns how long an upstream's reply may be cached: the least TTL
// of its answers, or by the SOA of a negative one (RFC 2308 §5). ok is false
// for what must not be cached.
func lifetime(m *dns.Msg) (ttl time.Duration, negative, ok bool) {
	if m.Truncated || (m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError) {
		return 0, false, false
	}
	if len(m.Answer) == 0 || m.Rcode == dns.RcodeNameError {
		for _, rr := range m.Ns {
			if soa, is := rr.(*dns.SOA); is {
				n := min(soa.Hdr.Ttl, soa.Minttl)
				return time.Duration(n) * time.Second, true, n > 0
			}
		}
		return 0, true, false
	}
	least := m.Answer[0].Header().Ttl
	for _, rr := range m.Answer {
		least = min(least, rr.Header().Ttl)
	}
	return time.Duration(least) * time.Second, false, least > 0
}
