// Package lookout looks again and again at what of the host is against a node, lets the
// node fix what it may, and says so when the findings change (L13).
//
// It owns when to look, how much processor time that may take, which sandboxes have
// their turn, and what was reported last. It decides nothing about the host: hostread
// reads, hostcheck judges, and what the node does there, what it may change and how a
// sandbox is entered are behind Host.
package lookout

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"meshd/lb/hostcheck"
	"meshd/lb/hostread"
	"meshd/mesh/control"
)

// How often the host is looked at: what nothing reports, as a change of a sysctl, is
// seen after lookInterval; whether anything else changed is asked each askInterval.
const (
	lookInterval = 5 * time.Second
	askInterval  = time.Second
	restFactor   = 50 // a look that took t is followed by none for so many times t
)

// Host is a node on the host that is looked at. Its methods are called by one goroutine
// at a time.
type Host interface {
	// Changed reports whether the node may do something else on the host than at the last
	// call.
	Changed() bool
	// Needs returns what the node does on the host.
	Needs(ctx context.Context) (*hostcheck.Needs, error)
	// Fix changes of the host what is the node's to change: accept are rules that chains of
	// others lack. It reports whether the host must be read again.
	Fix(ctx context.Context, f *hostcheck.Facts, needs *hostcheck.Needs, accept []hostcheck.AcceptRule) (changed bool)
	// OwnFindings returns what is wrong with the node rather than with the host.
	OwnFindings() []hostcheck.Finding
	// Sandboxes returns the names of the node's sandboxes, sorted.
	Sandboxes() []string
	// LookInside looks into a sandbox within the timeout; ok is false if that could not be.
	LookInside(ctx context.Context, sandbox string, timeout time.Duration) (found []hostcheck.Finding, ok bool)
}

// Config is what a Lookout needs.
type Config struct {
	Host   Host
	Reader hostread.Reader     // closed when Run ends
	Emit   func(control.Event) // is given an event when a finding comes or goes
	Log    *slog.Logger
}

// Lookout watches whether the host lets the node do its work. Its methods are safe for
// concurrent use.
type Lookout struct {
	cfg Config

	// turn is held by whoever looks, and guards the fields of this group.
	turn      chan struct{}
	host      []hostcheck.Finding // of the latest look at the host, sandboxes aside
	sandboxes insideLooks
	reports   reporter

	mu     sync.Mutex          // guards the fields below
	found  []hostcheck.Finding // of everything; replaced, never changed
	counts Counts
}

// Counts are running totals.
type Counts struct {
	Looks  uint64        // at the host
	Inside uint64        // into sandboxes
	Fixes  uint64        // changes that the node made of the host
	Spent  time.Duration // on looks and fixes
}

// New returns a Lookout that looks when it is asked, and by itself while Run does.
func New(cfg Config) *Lookout {
	return &Lookout{
		cfg: cfg, turn: make(chan struct{}, 1),
		sandboxes: insideLooks{found: map[string][]hostcheck.Finding{}},
		reports:   reporter{byCode: map[hostcheck.Code]*codeReports{}},
	}
}

// Findings returns what was found last, the gravest first. It must not be changed.
func (l *Lookout) Findings() []hostcheck.Finding {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.found
}

// Counts returns the totals so far.
func (l *Lookout) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts
}

// count changes the totals.
func (l *Lookout) count(f func(c *Counts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.counts)
}

// begin waits until no other goroutine looks, or ctx ends.
func (l *Lookout) begin(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another request: %w", ctx.Err())
	}
}

func (l *Lookout) end() { <-l.turn }

// Run looks at the host until ctx ends.
func (l *Lookout) Run(ctx context.Context) error {
	defer l.cfg.Reader.Close()
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	var next, due time.Time
	for {
		select {
		case <-ctx.Done():
			_ = l.begin(context.WithoutCancel(ctx)) // for ever: the reader is about to be closed
			return nil
		case <-tick.C:
		}
		now := time.Now()
		if now.Before(next) {
			continue
		}
		before := l.Counts().Spent
		if now.Before(due) && !l.changed(ctx) {
			l.lookIntoSome(ctx)
		} else {
			_, _ = l.look(ctx, sandboxesPerTurn, insideTime)
			due = now.Add(lookInterval)
		}
		next = now.Add(restFactor * (l.Counts().Spent - before))
	}
}

// changed reports whether the host, or what the node does there, may have changed since
// the latest look.
func (l *Lookout) changed(ctx context.Context) bool {
	if l.begin(ctx) != nil {
		return false
	}
	defer l.end()
	return l.cfg.Host.Changed() || l.cfg.Reader.Changed()
}

// lookIntoSome looks into some sandboxes while the host is as it was.
func (l *Lookout) lookIntoSome(ctx context.Context) {
	if len(l.cfg.Host.Sandboxes()) == 0 || l.begin(ctx) != nil {
		return
	}
	defer l.end()
	began := time.Now()
	l.publish(began, l.lookInside(ctx, sandboxesPerTurn, insideTime))
}

// Look looks at the host now, and into some more sandboxes than Run does at once, and
// returns what was found. The error is that of ctx, or of Host.Needs.
func (l *Lookout) Look(ctx context.Context) ([]hostcheck.Finding, error) {
	return l.look(ctx, sandboxesAsked, time.Second)
}

// look looks at the host once, and for at most limit into at most so many sandboxes, has
// the node fix what it may, and reports what has changed.
func (l *Lookout) look(ctx context.Context, sandboxes int, limit time.Duration) ([]hostcheck.Finding, error) {
	if err := l.begin(ctx); err != nil {
		return nil, err
	}
	defer l.end()
	needs, err := l.cfg.Host.Needs(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	want := hostread.Want{
		Tasks: needs.Tasks, Schedulers: needs.Schedulers, Destinations: slices.Concat(needs.Backends, needs.Peers),
	}
	facts := l.cfg.Reader.Read(want)
	found, accept := hostcheck.Check(facts, needs)
	if l.cfg.Host.Fix(ctx, facts, needs, accept) {
		found = hostcheck.Findings(l.cfg.Reader.Read(want), needs)
	}
	l.host = append(found, l.cfg.Host.OwnFindings()...)
	l.count(func(c *Counts) { c.Looks++ })
	return l.publish(began, l.lookInside(ctx, sandboxes, limit)), nil
}

// publish makes the findings known, with those inside of sandboxes.
func (l *Lookout) publish(began time.Time, inside []hostcheck.Finding) []hostcheck.Finding {
	found := slices.Concat(l.host, inside)
	slices.SortStableFunc(found, func(a, b hostcheck.Finding) int { return cmp.Compare(a.Severity, b.Severity) })
	spent := time.Since(began) // with the fixes: programs that are run take longest
	l.mu.Lock()
	l.found = found
	l.counts.Spent += spent
	l.mu.Unlock()
	l.report(began, found)
	return found
}

// Fixed counts a change that the node made of its host, and calls report, but for each
// subject at most once a minute: others may undo it each second. It is called by
// Host.Fix; before is how often it did not call report since the last time.
func (l *Lookout) Fixed(subject string, report func(before int)) {
	l.count(func(c *Counts) { c.Fixes++ })
	l.reports.fixes.Do(time.Now(), subject, report)
}
