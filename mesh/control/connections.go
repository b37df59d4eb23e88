package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
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

// connections is a listener that holds a bounded number of connections. When
// all are taken, a new one takes the place of the one that has waited longest
// for its client: to ask, to finish asking, or to ask again. So clients that
// hang stand against nobody. Only where every connection is being answered is a
// new one refused, with an Error.
type connections struct {
	net.Listener
	most int

	mu  sync.Mutex // guards all
	all map[*connection]struct{}

	turns            atomic.Int64 // how many times one began to wait
	evicted, refused atomic.Uint64
}

// connection is one of a client.
type connection struct {
	net.Conn
	in    *connections
	since atomic.Int64 // when it last began to wait for its client, in turns: clocks go back
	busy  atomic.Bool  // a request of it is being answered
}

func boundConnections(l net.Listener, most int) *connections {
	return &connections{Listener: l, most: most, all: map[*connection]struct{}{}}
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
		l.refused.Add(1)
		refuse(c)
	}
}

// admit makes room for a connection, or returns nil.
func (l *connections) admit(c net.Conn) net.Conn {
	out := &connection{Conn: c, in: l}
	out.waits()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) >= l.most {
		oldest := l.idlest()
		if oldest == nil {
			return nil
		}
		l.evicted.Add(1)
		delete(l.all, oldest)
		_ = oldest.Conn.Close()
	}
	l.all[out] = struct{}{}
	return out
}

// idlest returns the connection that waits longest for its client, or nil if
// all are being answered. The caller holds mu.
func (l *connections) idlest() *connection {
	var oldest *connection
	for c := range l.all {
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
	delete(c.in.all, c)
	c.in.mu.Unlock()
	return c.Conn.Close()
}

// refuse tells a client that there is no room, if that can be done at once: the
// reply fits the socket's buffer.
func refuse(c net.Conn) {
	b, _ := json.Marshal(Refuse(CodeBusy, "try again in a moment; meshctl waits for nothing by itself", "meshd answers as many requests as it can at once"))
	_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d Too Many Requests\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", http.StatusTooManyRequests, len(b), b)
	_ = c.Close()
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
