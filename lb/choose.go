package lb

import (
	"context"
	"log/slog"
	"strings"
	"time"
)

// How often and for how long a balancer asks for a namespace that another process
// programs: as long as that one may take to end, if it is a former life of ours.
// A process that has the namespace for longer is there to stay, and must find it
// as it was after a restart (L10).
const (
	askAgain = 500 * time.Millisecond
	askFor   = 15 * time.Second
)

// driverChoice finds the driver that programs the kernel (L7). It belongs to the
// balancer's goroutine.
type driverChoice struct {
	candidates []Driver      // Config.Drivers, in order of preference
	again      time.Duration // between two rounds without success, for the log
	log        *slog.Logger

	tried        int       // candidates that were probed in this round
	refused      []Refusal // of them, those that do not work
	loggedReason string    // why no driver works, as last logged
}

// next probes the candidates that were not probed in this round, and returns the
// first that works; nil: none does. After the last one was refused, the next call
// begins another round.
func (c *driverChoice) next(ctx context.Context) Driver {
	if c.tried >= len(c.candidates) {
		c.tried, c.refused = 0, nil
	}
	d, refused := chooseDriver(ctx, c.candidates[c.tried:])
	c.tried += len(refused) + 1
	c.refused = append(c.refused, refused...)
	if d != nil {
		c.log.Info("load balancing driver chosen", slog.String("driver", d.Name()), slog.Any("refused", c.refused))
		c.loggedReason = ""
	}
	return d
}

// refuse rejects a driver that had been chosen: its Probe was too hopeful.
func (c *driverChoice) refuse(d Driver, err error) {
	c.refused = append(c.refused, Refusal{Driver: d.Name(), Reason: err.Error()})
}

// refuseAll rejects every driver, as another process programs the namespace.
func (c *driverChoice) refuseAll(err error) {
	var names []string
	for _, d := range c.candidates {
		names = append(names, d.Name())
	}
	c.tried, c.refused = len(names), []Refusal{{Driver: strings.Join(names, " and "), Reason: err.Error()}}
}

// off reports whether there is no driver to choose.
func (c *driverChoice) balancingOff() bool { return len(c.candidates) == 0 }

// reason says why there is no driver, as far as the choice explains it; else "".
func (c *driverChoice) reason() string {
	var all []string
	for _, r := range c.refused {
		all = append(all, r.Driver+": "+r.Reason)
	}
	switch {
	case len(all) > 0:
		return "no load balancing driver works here: " + strings.Join(all, "; ")
	case c.balancingOff():
		return "load balancing is off"
	}
	return ""
}

// logNone logs, once per reason, that nothing is balanced here.
func (c *driverChoice) logNone(reason string) {
	if reason == c.loggedReason {
		return
	}
	c.loggedReason = reason
	if c.balancingOff() {
		c.log.Info("load balancing is off; vip services are answered with their tasks")
		return
	}
	c.log.Warn("nothing is balanced on this host; vip services are answered with their tasks",
		slog.String("why", reason), slog.Duration("again_in", c.again))
}
