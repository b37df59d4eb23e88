package lb

import (
	"context"
	"errors"
	"time"
)

// start chooses a driver if there is none, sets it up and adopts what the kernel
// holds.
func (b *Balancer) start(ctx context.Context, now time.Time) {
	b.kernel.ready = false
	if !b.mayProgram(now) {
		return
	}
	if !b.choose(ctx) {
		b.count.Unsupported = true
		b.clock.setNoLater(alarmProbe, now.Add(b.cfg.RetryMax))
		if b.choice.balancingOff() {
			b.clock.setNoLater(alarmRetire, b.retirement.begin(b.kernel.driver, now))
		}
		return
	}
	b.count.Unsupported = false
	r := Report{At: now, Driver: b.kernel.driverName(), Full: true}
	if err := b.auditor.setUp(ctx, now, &r); err != nil {
		after := b.failures.nextBackoff()
		if errors.Is(err, ErrUnsupported) { // the next driver may work
			b.choice.refuse(b.kernel.driver, err)
			b.kernel.driver, after = nil, 0
		}
		b.clock.setNoLater(alarmProbe, now.Add(after))
		return
	}
	b.failures.wait = 0
	b.kernel.ready, b.kernel.adopted = true, true
	b.cfg.OnDriver(b.kernel.driverName())
	b.clock.setNoLater(alarmRetire, b.retirement.begin(b.kernel.driver, now))
	b.clock.setNoLater(alarmVerify, now.Add(b.cfg.Verify))
	b.clock.setNoLater(alarmPollRules, now.Add(b.cfg.PollInterval))
	b.clock.setNoLater(alarmApply, now)
	if len(r.Findings) > 0 { // changed while the driver did not work
		b.reconciler.collect()
		b.reconcile(ctx, now)
		b.auditor.markRepaired(ctx, &r)
	}
	b.auditor.record(&r)
}

// mayProgram reports whether the kernel may be programmed. If not, it keeps why,
// and sets the alarm to ask again.
func (b *Balancer) mayProgram(now time.Time) bool {
	if b.choice.balancingOff() && (len(b.cfg.Former) == 0 || b.retirement.begun) {
		return true
	}
	err := b.cfg.MayProgram()
	if err == nil {
		return true
	}
	b.kernel.driver = nil
	b.choice.refuseAll(err)
	b.count.Unsupported = true
	b.choice.logNone(b.notReady())
	if now.Before(b.started.Add(askFor)) {
		b.clock.setNoLater(alarmProbe, now.Add(askAgain))
	}
	return false
}

// choose makes sure that there is a driver, and reports whether there is.
func (b *Balancer) choose(ctx context.Context) bool {
	if b.kernel.driver == nil {
		b.kernel.driver = b.choice.next(ctx)
	}
	if b.kernel.driver == nil {
		b.choice.logNone(b.notReady())
		return false
	}
	return true
}

// notReady says why nothing can be compared.
func (b *Balancer) notReady() string {
	switch {
	case b.held:
		return "the daemon is stopping; the kernel stays as it is"
	case b.failures.text != "":
		return b.failures.text
	}
	if why := b.choice.reason(); why != "" {
		return why
	}
	return "the driver is not set up yet"
}
