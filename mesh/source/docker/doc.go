// Package docker is the source of tasks that are containers of a Docker engine, or of
// Podman's compatible socket: what their labels ask for is handed to a source.Sink, a
// unit for each container (N12).
//
// The engine's events are hints: they say which container to look at, and the look
// decides. What is true comes from a list of all containers, read again and again. What
// an engine does not say, because it is away or has lost it, the kernel does: a
// process descriptor of each container's first process tells its end at once. While
// the engine does not answer, nothing changes but what the kernel tells.
//
// Labels are hostile input: whoever may start a container must not get more of the
// node by them than a task of that container. No label names a command to run.
//
// One goroutine, Run's, owns what is known of containers; looking at one, handing it
// over and attaching its sandbox happen beside it, each bounded. dockertest has an
// engine to test against.
package docker

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/source"
)

// The bounds and paces of the source.
const (
	maxContainers = 8192 // that are looked after; others are refused, and the source says so
	maxInspects   = 4    // looks at once
	maxHandovers  = 32   // units that are handed over at once
	maxAttaches   = 4    // sandboxes that are attached at once

	inspectLimit = 5 * time.Second
	listLimit    = 20 * time.Second
	pingLimit    = 5 * time.Second
	sinkLimit    = 30 * time.Second
	attachLimit  = 30 * time.Second

	debounce    = 20 * time.Millisecond // between two looks at one container; the first is at once
	secondList  = 2 * time.Second       // after the first: what came between the two is in neither
	listEvery   = 30 * time.Second      // ±20 %
	pingEvery   = 10 * time.Second
	maxMisses   = 3                      // pings without an answer until another client is made
	sinceBefore = 5 * time.Second        // how far events are asked for again
	firstDelay  = 100 * time.Millisecond // of the back-off
	lastDelay   = 30 * time.Second
)

// Config configures a Source. All but Sandboxes and Dial are required.
type Config struct {
	// Sockets are the paths of the engine's API, the first that is there counts. A path
	// is looked up at each connection: a new engine makes a new socket.
	Sockets []string
	// Optional says that there may be no engine at all, which is no trouble then.
	Optional bool
	// Sink takes the containers' tasks.
	Sink source.Sink
	// Sandboxes attaches the containers that ask for it; nil: none is.
	Sandboxes Sandboxes
	// NodeAddrs returns the addresses at which the node is reached, those of containers
	// that have none of their own. It is called from the source's goroutine.
	NodeAddrs func() []netip.Addr
	// Processes watches the containers' processes; see OpenProcess.
	Processes func(pid int, started time.Time) (Process, error)
	// Condition replaces a standing condition of the node; "" ends it.
	Condition func(key, text string)
	// Log is for what no caller is there to hear.
	Log *slog.Logger
	// Dial connects to a socket; nil: the operating system does. For tests.
	Dial func(ctx context.Context, path string) (net.Conn, error)
}

// Sandboxes attaches sandboxes: the part of control.SandboxBackend that a source needs.
type Sandboxes interface {
	AttachSandbox(ctx context.Context, req control.AttachSandbox) (control.SandboxAttached, error)
	Sandboxes(ctx context.Context) ([]control.Sandbox, error)
}

// Process is the first process of a container.
type Process interface {
	// Died is closed when it has ended.
	Died() <-chan struct{}
	// Sure says that it is the one that was started at the time that was given, and not
	// another one that has its number since.
	Sure() bool
	// Close ends the watching.
	Close() error
}

// Source is the source. Make it with New, and call Run once. Its other methods are safe
// for concurrent use.
type Source struct {
	cfg Config // fixed

	mu    sync.Mutex // guards what follows; held for moments
	stats Stats
	units []control.SourceUnit // as Units returns them; replaced, never changed
}

// New returns a source. It connects to nothing.
func New(cfg Config) *Source {
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, path string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	}
	return &Source{cfg: cfg}
}

// Units returns the containers that the source looks after, with what became of them,
// sorted by name. The caller must not change them.
func (s *Source) Units() []control.SourceUnit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units
}

// Stats counts what a source did since it was made.
type Stats struct {
	// The engine.

	Socket      string    // in use, or the last one; "": none was there
	Connected   bool      // the engine answers
	Since       time.Time // when Connected changed; zero: never
	Connections uint64    // that were made

	// What was asked, and what came.

	Events          uint64 // that said something of containers
	Lists           uint64 // of all containers
	ListFailures    uint64 // of them, those that failed
	Inspects        uint64 // of one container
	InspectFailures uint64 // of them, those that failed

	// What was found.

	Missed     uint64         // changes that no event told, found by a list
	Refused    int            // containers that ask for something that cannot be
	Waiting    int            // looks and handovers that wait
	Containers map[string]int // that are looked after, by state (control.SourceUnit); fixed
}

// Stats returns the counters.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// count changes the counters.
func (s *Source) count(f func(c *Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}
