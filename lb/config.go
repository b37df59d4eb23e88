package lb

import (
	"errors"
	"log/slog"
	"time"

	"meshd/lb/hostfacts"
	"meshd/state"
)

// Config are the settings of a Balancer. The zero value of a duration means
// its default.
type Config struct {
	// Source gives the views. Required.
	Source state.Source
	// Drivers in order of preference (L7); the first that works is used. The
	// balancer takes ownership and closes them. None means: serve DNS only (R5).
	Drivers []Driver
	// Former are drivers that are not to be used any more. What a run of them left
	// here is ended like a service that is removed (L5), as is that of the Drivers
	// that are not chosen. The balancer closes them too.
	Former []Driver
	// Node are the facts about this host.
	Node Node
	// Facts says what the host is and needs, so that no pool takes it away (L9).
	// Nil: nothing is known, and nothing stands against a pool.
	Facts HostFacts
	// Only reports whether a network is to be balanced here, for a sandbox that
	// is attached to some networks (L4). Nil means all.
	Only func(network string) bool
	// MayProgram is asked before the kernel is, and for some seconds again while
	// it says why not: two processes must not program one namespace (L10). Nil:
	// this one may.
	MayProgram func() error
	// OnDriver is told which driver programs the kernel and, without any driver,
	// once what Former left is gone, "". It is called like OnDrift.
	OnDriver func(name string)
	// Log receives what changes for operators. Required.
	Log *slog.Logger

	Coalesce time.Duration // how long changes gather before they are applied; default 5 ms
	// Verify is the time between comparisons with the kernel; default 30 s.
	// Services are read back each time, but not while the driver knows that
	// nobody touched them (Watchful), and less often where that takes long: at
	// most for one part in auditShare of the time.
	Verify time.Duration
	// Glance is the time between looks at whether anybody else wrote to the
	// kernel's rules, with drivers that are Numbered and as long as Unheard says
	// so; default 1 s. What they find is compared at once.
	PollInterval time.Duration
	// Touched tells that somebody may have changed what is ours: it is compared at
	// once, and again as soon as Prompts allows. May be nil.
	RoutesChanged <-chan struct{}
	// Heard tells the same of the kernel's rules, and when Unheard changes. May be
	// nil.
	RulesChanged <-chan struct{}
	// Unheard reports whether what others write to the kernel's rules is not told
	// by Heard. Nil: it is not.
	PollRules func() bool
	// Prompts bounds the time for comparisons that others prompt, of all balancers
	// that share it; default a Budget of its own.
	TriggerBudget *Budget
	// Audit is the time after which services are read back even if the driver
	// says that nobody touched them; default 10 min.
	Audit time.Duration
	// OnDrift is told what somebody else changed, in the balancer's goroutine: it
	// must not block. Where that happens without end, it is not told each time, and
	// neither is the log. May be nil.
	OnDrift func(Report)
	// OnRefused is told what stands against a network's pools here when that
	// changes, and nil when nothing does any more. It is called like OnDrift.
	OnRefused func(network string, against []hostfacts.Conflict)
	// DrainPoll is the time until the first look at a draining backend, and the
	// shortest between two; default 1 s. It doubles up to eight times as much
	// while no other backend begins to drain, and grows where looking takes long.
	DrainPoll time.Duration
	RetryMin  time.Duration // before a failed operation is tried again, doubled each time; default 100 ms
	RetryMax  time.Duration // default 30 s
	// Grace is how long after the start nothing of a previous run is removed
	// from a network that has not synced yet (R4, L1). Default 10 s.
	Grace time.Duration
}

func (c *Config) validate() error {
	if c.Source == nil {
		return errors.New("lb: Source: missing; pass the store of views")
	}
	if c.Log == nil {
		return errors.New("lb: Log: missing; pass a slog.Logger")
	}
	if c.Only == nil {
		c.Only = func(string) bool { return true }
	}
	if c.PollRules == nil {
		c.PollRules = func() bool { return true }
	}
	if c.TriggerBudget == nil {
		c.TriggerBudget = &Budget{}
	}
	if c.MayProgram == nil {
		c.MayProgram = func() error { return nil }
	}
	if c.OnDrift == nil {
		c.OnDrift = func(Report) {}
	}
	if c.OnDriver == nil {
		c.OnDriver = func(string) {}
	}
	if c.OnRefused == nil {
		c.OnRefused = func(string, []hostfacts.Conflict) {}
	}
	for _, d := range []struct {
		field    *time.Duration
		fallback time.Duration
	}{
		{&c.Coalesce, 5 * time.Millisecond},
		{&c.Verify, 30 * time.Second},
		{&c.PollInterval, time.Second},
		{&c.Audit, 10 * time.Minute},
		{&c.DrainPoll, time.Second},
		{&c.RetryMin, 100 * time.Millisecond},
		{&c.RetryMax, 30 * time.Second},
		{&c.Grace, 10 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.fallback
		}
	}
	return nil
}
