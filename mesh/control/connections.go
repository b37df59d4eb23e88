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

// maxOver is how many connections above the bound may be held until their
// request is read: a client that is told before it has written all of it may
// see a broken pipe instead of the reply.
const maxOver = 16

// connections is a listener that holds a bounded number of connections. When
// all are taken, a new one takes the place of the one that has waited longest
// for its client: to ask, to finish asking, or to ask again. So clients that
// hang stand against nobody. Only where every connection is being answered does
// a new one get a place among those over the bound, by the same rule; its
// request is answered with CodeBusy, whatever it is.
type connections struct {
	net.Listener

	mu        sync.Mutex // guards the places
	all, over places

	turns            atomic.Int64 // how many times one began to wait
	evicted, refused atomic.Uint64
}

// connection is one of a client.
type connection struct {
	net.Conn
	in    *connections
	place *places
	since atomic.Int64 // when it last began to wait for its client, in turns: clocks go back
	busy  atomic.Bool  // a request of it is being answered
}

// places are those of a bounded number of connections. Giving a place back twice
// is giving it back once.
type places struct {
	most int
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
		_ = c.Close() // as many are being told to come back already
	}
}

// admit gives a connection a place, or returns nil.
func (l *connections) admit(c net.Conn) net.Conn {
	out := &connection{Conn: c, in: l}
	out.waits()
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

// take gives a connection one of the places, that of the one which waits longest
// for its client if there is no other. The caller holds mu.
func (l *connections) take(p *places, c *connection) bool {
	if len(p.held) >= p.most {
		oldest := p.idlest()
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

// idlest returns the connection that waits longest for its client, or nil if
// all are being answered. The caller holds mu.
func (p *places) idlest() *connection {
	var oldest *connection
	for c := range p.held {
		if !c.busy.Load() && (oldest == nil || c.since.Load() < oldest.since.Load()) {
			oldest = c
		}
	}
	return oldest
}

func (c *connection) waits() { c.since.Store(c.in.turns.Add(1)) }

// answers says that a request is complete and being answered; the caller calls
// the function it returns when it is.
func (c *connection) answers() (done func()) {
	c.busy.Store(true)
	return func() {
		c.waits()
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

// withConnection lets a request find its connection.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

// answering notes that a request's connection is busy until done is called.
func answering(ctx context.Context) (done func()) {
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
		return c.answers()
	}
	return func() {}
}

// overBound reports whether a request came on a connection for which there was
// no room.
func overBound(ctx context.Context) bool {
	c, ok := ctx.Value(connectionKey{}).(*connection)
	return ok && c.place == &c.in.over
}
