// Package dockertest has a container engine for tests: it speaks the part of the
// engine's API that package docker needs, over HTTP, in memory or on a unix socket. Its
// containers are what a test says. It loses, repeats and delays events, hangs, is
// restarted, and behaves as Podman does, when a test asks for that.
package dockertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// ring is how many events an engine remembers.
const ring = 256

// Engine is an engine. Make it with New. Its methods are safe for concurrent use.
type Engine struct {
	// Processes are those of the containers.
	Processes *Processes

	mu         sync.Mutex                    // guards what follows
	containers map[string]*Container         // by id
	made       int                           // containers that were ever made
	past       []events.Message              // the newest, at most ring
	subscribed map[chan struct{}]*subscriber // by what wakes them
	lose       func(events.Message) bool     // those that nobody is told of; nil: none
	repeat     int                           // how often more each event is told
	delay      time.Duration                 // of looks at containers
	hang       chan struct{}                 // closed when it answers again; nil: it answers
	podman     bool                          // it behaves as Podman does
	down       bool                          // it does not run
	server     *http.Server                  // of this run
	accept     chan net.Conn                 // connections to it

	inspecting, most, inspects int // looks under way, the most at once, all
}

// subscriber is one stream of events.
type subscriber struct {
	queue []events.Message // not sent yet
	wake  chan struct{}
}

// New returns an engine that runs, without containers.
func New() *Engine {
	e := &Engine{
		Processes: &Processes{alive: map[int]*process{}}, containers: map[string]*Container{},
		subscribed: map[chan struct{}]*subscriber{},
	}
	e.Up()
	return e
}

// Up starts the engine again after Down.
func (e *Engine) Up() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = false
	e.accept = make(chan net.Conn)
	e.server = &http.Server{Handler: e}
	l := &pipes{accept: e.accept, closed: make(chan struct{})}
	go func(s *http.Server) { _ = s.Serve(l) }(e.server)
}

// Serve answers on a listener, too, until that is closed.
func (e *Engine) Serve(l net.Listener) error {
	e.mu.Lock()
	s := e.server
	e.mu.Unlock()
	return s.Serve(l)
}

// Down ends the engine: its connections break, its socket is gone, what it remembers of
// events is lost. Its containers run on, if they are to live, as with live-restore; else
// they end.
func (e *Engine) Down(live bool) {
	e.mu.Lock()
	e.down, e.past = true, nil
	s, all := e.server, e.containers
	for _, c := range all {
		if live && c.Health != "" {
			c.Health = container.Starting // nobody is told
		}
		if !live && c.State == container.StateRunning {
			c.State = container.StateExited
			e.Processes.end(c.PID)
		}
	}
	e.mu.Unlock()
	_ = s.Close()
}

// Close ends the engine.
func (e *Engine) Close() {
	e.Resume()
	e.Down(true)
}

// Dial connects to the engine, as docker.Config.Dial does.
func (e *Engine) Dial(ctx context.Context, path string) (net.Conn, error) {
	e.mu.Lock()
	accept, down := e.accept, e.down
	e.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: fmt.Errorf("%s: %w", path, fs.ErrNotExist)}
	}
	here, there := net.Pipe()
	select {
	case accept <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pipes is the listener of Dial.
type pipes struct {
	accept chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "pipe"} }

// Lose makes the engine keep events from everybody; nil: it tells all.
func (e *Engine) Lose(which func(m events.Message) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lose = which
}

// Repeat makes the engine tell each event so many times more, and the newest of the past
// with it.
func (e *Engine) Repeat(times int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.repeat = times
}

// Delay makes each look at a container take so long.
func (e *Engine) Delay(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.delay = d
}

// Hang makes the engine take requests and not answer, until Resume. Streams are silent.
func (e *Engine) Hang() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hang == nil {
		e.hang = make(chan struct{})
	}
}

// Resume ends Hang.
func (e *Engine) Resume() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hang != nil {
		close(e.hang)
		e.hang = nil
	}
}

// Podman makes the engine behave as Podman's socket does: a container that ends has
// died, lists have no health, attributes of events no labels.
func (e *Engine) Podman() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.podman = true
}

// Inspects returns how many looks at containers there were, and how many at once.
func (e *Engine) Inspects() (all, most int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inspects, e.most
}

// Subscribers returns how many streams of events are open.
func (e *Engine) Subscribers() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.subscribed)
}

// ServeHTTP implements the API.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	hang := e.hang
	e.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
			return
		}
	}
	path := r.URL.Path
	if strings.HasPrefix(path, "/v1.") {
		_, path, _ = strings.Cut(path[1:], "/")
		path = "/" + path
	}
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Ostype", "linux")
	id, isContainer := strings.CutPrefix(path, "/containers/")
	switch {
	case path == "/_ping":
		_, _ = w.Write([]byte("OK"))
	case path == "/containers/json":
		e.list(w)
	case path == "/events":
		e.events(w, r)
	case isContainer && strings.HasSuffix(id, "/json"):
		e.inspect(w, r, strings.TrimSuffix(id, "/json"))
	default:
		http.Error(w, `{"message":"page not found"}`, http.StatusNotFound)
	}
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (e *Engine) list(w http.ResponseWriter) {
	e.mu.Lock()
	all := []container.Summary{}
	for _, c := range e.containers {
		if c.State != container.StateExited && c.State != container.StateCreated {
			all = append(all, c.summary(e.podman))
		}
	}
	e.mu.Unlock()
	reply(w, all)
}

func (e *Engine) inspect(w http.ResponseWriter, r *http.Request, id string) {
	e.mu.Lock()
	e.inspects++
	e.inspecting++
	e.most = max(e.most, e.inspecting)
	delay := e.delay
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.inspecting--
		e.mu.Unlock()
	}()
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		}
	}
	e.mu.Lock()
	c := e.find(id)
	var found container.InspectResponse
	if c != nil {
		found = c.inspect()
	}
	e.mu.Unlock()
	if c == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprintf(w, `{"message":"No such container: %s"}`, id)
		return
	}
	reply(w, found)
}

func (e *Engine) find(id string) *Container {
	if c := e.containers[id]; c != nil {
		return c
	}
	for _, c := range e.containers {
		if c.Name == id {
			return c
		}
	}
	return nil
}

// errUnknown is for tests that name a container that is not there.
var errUnknown = errors.New("dockertest: no such container")
