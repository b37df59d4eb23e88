package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

// The bounds of what an engine may say, in bytes.
const (
	maxReply = 64 << 20 // of a reply: thousands of containers
	maxEvent = 1 << 20  // of an event
)

// engine is one client of the API. The API's version is agreed upon once for each
// client, so one is made anew whenever the engine may be another one.
type engine struct {
	client *client.Client
	reply  *http.Transport
}

// dial makes a client of the first socket that is there, and asks whether somebody
// answers on it.
func dial(ctx context.Context, cfg *Config) (e *engine, path string, err error) {
	for _, path = range cfg.Sockets {
		if e, err = open(ctx, cfg, path); !errors.Is(err, os.ErrNotExist) {
			return e, path, err
		}
	}
	return nil, "", fmt.Errorf("%w: there is none", errNoSocket)
}

// errNoSocket says that no engine is installed, or that it is being started.
var errNoSocket = errors.New("no socket of an engine")

func open(ctx context.Context, cfg *Config, path string) (*engine, error) {
	transport := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return cfg.Dial(ctx, path) },
		DisableCompression: true, MaxIdleConns: maxInspects + 2, IdleConnTimeout: 30 * time.Second,
		ResponseHeaderTimeout: listLimit,
	}
	// The transport has no limit for a whole request: it would cut the stream of events.
	c, err := client.New(client.WithHost("unix://"+path),
		client.WithHTTPClient(&http.Client{Transport: bounded{transport}}))
	if err != nil {
		return nil, err
	}
	e := &engine{c, transport}
	if err := e.ping(ctx); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// bounded bounds the replies of a transport, but for streams.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	reply, err := b.Transport.RoundTrip(r)
	switch {
	case err != nil:
	case isStream(r):
		reply.Body = &lines{body: reply.Body}
	default:
		reply.Body = &limited{io.LimitedReader{R: reply.Body, N: maxReply}, reply.Body}
	}
	return reply, err
}

// isStream says that a reply has no end.
func isStream(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, "/events")
}

// limited is a body of which no more is read than its bound.
type limited struct {
	io.LimitedReader
	body io.Closer
}

// lines is a stream that ends with an error at a line that is longer than maxEvent.
type lines struct {
	body io.ReadCloser
	long int // bytes since the last line's end
}

func (l *lines) Read(p []byte) (int, error) {
	n, err := l.body.Read(p)
	if i := bytes.LastIndexByte(p[:n], '\n'); i >= 0 {
		l.long = n - i - 1
	} else {
		l.long += n
	}
	if l.long > maxEvent {
		err = errors.Join(err, errLongEvent)
	}
	return n, err
}

func (l *lines) Close() error { return l.body.Close() }

var errLongEvent = errors.New("an event is longer than 1 MiB")

func (l *limited) Close() error { return l.body.Close() }

func (e *engine) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	_, err := e.client.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	return err
}

// list returns the containers that run, those that are paused too.
func (e *engine) list(ctx context.Context) ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	r, err := e.client.ContainerList(ctx, client.ContainerListOptions{})
	return r.Items, err
}

// errNoContainer says that the engine knows no such container.
var errNoContainer = errors.New("no such container")

// inspect looks at a container, and at the one whose network it uses.
func (e *engine) inspect(ctx context.Context, id string) (*look, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectLimit)
	defer cancel()
	r, err := e.client.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil, errNoContainer
	}
	if err != nil {
		return nil, err
	}
	l := &look{self: r.Container}
	if h := l.self.HostConfig; h != nil && h.NetworkMode.IsContainer() {
		o, err := e.client.ContainerInspect(ctx, h.NetworkMode.ConnectedContainer(), client.ContainerInspectOptions{})
		switch {
		case err == nil:
			l.other = &o.Container
		case !errdefs.IsNotFound(err):
			return nil, err
		}
	}
	return l, nil
}

// events subscribes. What happened since then is repeated, as far as the engine
// remembers. Which of its events count is decided here: engines differ in what their
// filters match.
func (e *engine) events(ctx context.Context, since time.Time) client.EventsResult {
	f := make(client.Filters).Add("type", string(events.ContainerEventType), string(events.NetworkEventType))
	return e.client.Events(ctx, client.EventsListOptions{
		Since: fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()), Filters: f,
	})
}

func (e *engine) close() error {
	err := e.client.Close()
	e.reply.CloseIdleConnections()
	return err
}
