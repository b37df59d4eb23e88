package control

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// limits bound what clients can hold of the server.
type limits struct {
	body        time.Duration // how long a body may take
	connections int           // at once
	watchers    int           // of these; the rest is for commands
}

// The bounds of the server, unless the process may open few files only.
const (
	maxConnections = 256
	maxWatchers    = 64
)

// defaultLimits takes at most a quarter of the files that the process may open.
func defaultLimits() limits {
	l := limits{body: bodyLimit, connections: maxConnections, watchers: maxWatchers}
	if files := maxFiles(); files/4 < maxConnections {
		l.connections = max(files/4, 8)
		l.watchers = l.connections / 4
	}
	return l
}

// maxOver is how many connections above the bound are held until their request
// has been read. A client that gets its reply before it has written the whole
// request may see a broken pipe instead.
const maxOver = 16

// connections is a listener that holds a bounded number of connections. When
// all places are taken, a new connection takes the place of the one that has
// waited longest for its client: for a request, for the rest of one, or for the
// next. So clients that hang keep no other client out. Only when every connection
// is being answered does a new one go over the bound, where the same rule holds;
// its request is answered with CodeBusy, whatever it is.
type connections struct {
	net.Listener

	mu        sync.Mutex // guards the places
	all, over places

	turns   atomic.Int64  // counts the beginnings of waits, and orders them
	evicted atomic.Uint64 // connections that lost their place to a new one
	refused atomic.Uint64 // connections that came while all were being answered
}

// connection is the connection of one client.
type connection struct {
	net.Conn
	in    *connections
	place *places
	since atomic.Int64 // the turn in which it last began to wait: a clock might go back
	busy  atomic.Bool  // its request is being answered
}

// places holds a bounded number of connections. A place may be given back more
// than once.
type places struct {
	most int // the bound
	held map[*connection]struct{}
}

func boundConnections(l net.Listener, most int) *connections {
	return &connections{
		Listener: l,
		all:      places{most, map[*connection]struct{}{}},
		over:     places{maxOver, map[*connection]struct{}{}},
	}
}

// Accept implements net.Listener.
func (l *connections) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if out := l.admit(c); out != nil {
			return out, nil
		}
		_ = c.Close() // the places for refusals are taken, too
	}
}

// admit gives a connection a place, or returns nil.
func (l *connections) admit(c net.Conn) net.Conn {
	out := &connection{Conn: c, in: l}
	out.beginWait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.take(&l.all, out) {
		return out
	}
	l.refused.Add(1)
	if l.take(&l.over, out) {
		return out
	}
	return nil
}

// take gives a connection one of the places. If none is free, it closes the
// connection that has waited longest for its client. It reports whether the
// connection has a place. The caller holds mu.
func (l *connections) take(p *places, c *connection) bool {
	if len(p.held) >= p.most {
		oldest := p.longestWaiting()
		if oldest == nil {
			return false
		}
		l.evicted.Add(1)
		delete(p.held, oldest)
		_ = oldest.Conn.Close()
	}
	c.place = p
	p.held[c] = struct{}{}
	return true
}

// longestWaiting returns the connection that has waited longest for its client,
// or nil if all are being answered. The caller holds mu.
func (p *places) longestWaiting() *connection {
	var oldest *connection
	for c := range p.held {
		if !c.busy.Load() && (oldest == nil || c.since.Load() < oldest.since.Load()) {
			oldest = c
		}
	}
	return oldest
}

// beginWait marks the moment from which the connection waits for its client.
func (c *connection) beginWait() { c.since.Store(c.in.turns.Add(1)) }

// beginAnswer marks the connection as busy: its request is complete. The caller
// calls done when the request has been answered.
func (c *connection) beginAnswer() (done func()) {
	c.busy.Store(true)
	return func() {
		c.beginWait()
		c.busy.Store(false)
	}
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.in.mu.Lock()
	delete(c.place.held, c)
	c.in.mu.Unlock()
	return c.Conn.Close()
}

type connectionKey struct{}

// withConnection puts the connection into the context of its requests.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

// beginAnswer marks the connection of a request as busy until done is called.
func beginAnswer(ctx context.Context) (done func()) {
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
		return c.beginAnswer()
	}
	return func() {}
}

// overBound reports whether a request came on a connection that is over the
// bound, and is to be refused.
func overBound(ctx context.Context) bool {
	c, ok := ctx.Value(connectionKey{}).(*connection)
	return ok && c.place == &c.in.over
}
