package lb

import (
	"errors"
	"log/slog"
	"time"

	"meshd/lb/hostfacts"
	"meshd/state"
)

// Config are the settings of a Balancer. The zero value of a duration means
// its default. Functions must not block; those without another rule may be nil.
type Config struct {
	// What to balance.

	Source state.Source              // of the views. Required
	Only   func(network string) bool // whether a network is balanced here, as in a sandbox (L4); nil: all
	Node   Node                      // the host, as plans need it
	Facts  HostFacts                 // what the host is and needs (L9); nil: no pool is refused

	// With what.

	// Drivers are tried in order, and the first that works is used (L7). The
	// balancer takes ownership and closes them. None: only DNS is served (R5).
	Drivers []Driver
	// Former are drivers that are not used any more. What a run of them left here
	// is ended like a service that is removed (L5, L14), as is what those of Drivers
	// left that are not chosen. The balancer takes ownership and closes them.
	Former []Driver
	// MayProgram is asked before the kernel is touched, and says why it must not be:
	// two processes must not program one namespace (L10). While it does, it is asked
	// again for some seconds. Nil: this process may.
	MayProgram func() error

	// Where to report. The functions are called in the balancer's goroutine.

	Log *slog.Logger // what changes, for operators. Required
	// OnDriver gets the name of the driver that programs the kernel; without any
	// driver, "" once what Former left is gone.
	OnDriver func(name string)
	// OnDrift gets what somebody else changed. Where that happens without end, it is
	// called now and then only, like the log.
	OnDrift func(Report)
	// OnRefused gets what a network's pools conflict with on this host, when that
	// changes, and nil when nothing does any more.
	OnRefused func(network string, conflicts []hostfacts.Conflict)

	// When changes of the views reach the kernel.

	Coalesce time.Duration // how long changes gather before they are applied; default 5 ms
	RetryMin time.Duration // before a failed operation is tried again, doubled each time; default 100 ms
	RetryMax time.Duration // the most that RetryMin grows to; default 30 s
	Grace    time.Duration // how long networks that have not synced lose nothing (R4, L1); default 10 s
	// DrainPoll is the time until the first look at a draining backend, and the
	// shortest between two; default 1 s. It doubles up to eight times as much
	// while no other backend begins to drain, and grows where looking takes long.
	DrainPoll time.Duration

	// When the kernel is compared with what was left there (L1, L15).

	// Verify is the time between two comparisons; default 30 s. Each reads the
	// services back, unless the driver knows that they were not changed (Watchful), and
	// less often where that takes long: at most for one part in readbackShare of the
	// time.
	Verify time.Duration
	// Audit is the time after which services are read back even if the driver
	// says that they were not changed; default 10 min.
	Audit time.Duration
	// RoutesChanged is sent to when routes or routing rules of ours may be gone: they
	// are compared at once, and again as soon as TriggerBudget allows. May be nil.
	RoutesChanged <-chan struct{}
	// RulesChanged is sent to when others may have written to the packet filters'
	// rules, and when the answer of PollRules changes. May be nil.
	RulesChanged <-chan struct{}
	// PollRules reports whether changes of the rules are not announced by
	// RulesChanged now, so that the kernel has to be asked. Nil: they never are.
	PollRules func() bool
	// PollInterval is the time between two such questions, to drivers that are
	// Numbered; default 1 s.
	PollInterval time.Duration
	// TriggerBudget bounds the time for comparisons that others cause, of all
	// balancers that share it; default a Budget of its own.
	TriggerBudget *Budget
}

// validate fills in defaults, and names a required setting that is missing.
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
