package lb

import (
	"context"
	"time"
)

// verify compares with the kernel and repairs, as often as Config says.
func (b *Balancer) verify(ctx context.Context, now time.Time) {
	b.clock.setNoLater(alarmVerify, now.Add(b.cfg.Verify))
	if !b.kernel.ready {
		return // alarmProbe is set
	}
	full := b.auditor.pace.due(now) || !b.kernel.untouched(ctx)
	b.kernel.seenNumber = b.kernel.rulesetNumber(ctx) // what others wrote until now is compared now
	resting := b.auditor.pace.resting(now)
	if full && resting {
		b.clock.setNoLater(alarmVerify, b.auditor.pace.notBefore)
	}
	r := b.auditor.examine(ctx, now, full && !resting, true)
	b.auditor.record(&r)
}

// Verify compares what is in the kernel with what should be there, now and in
// full (L1), and repairs it if asked to. What differs is in the report; what
// was repaired is marked. Changes of the views wait meanwhile. The error is
// ErrStopped or that of ctx; that nothing could be compared is in the report.
func (b *Balancer) Verify(ctx context.Context, repair bool) (Report, error) {
	return runInLoop(ctx, b, func(run context.Context) Report {
		now := time.Now()
		if !b.kernel.ready || b.held {
			return Report{At: now, Driver: b.kernel.driverName(), Error: b.notReady()}
		}
		b.reconciler.collect()
		b.reconcile(run, now) // what is on its way is no difference
		r := b.auditor.examine(run, now, true, repair)
		if repair {
			b.auditor.record(&r)
		}
		b.publish()
		return r
	})
}

// LastReport returns the latest comparison with the kernel, and the latest that
// found something; nil if there was none. They are immutable. It does not block.
func (b *Balancer) LastReport() (latest, drifted *Report) {
	return b.auditor.reports.last.Load(), b.auditor.reports.drifted.Load()
}
