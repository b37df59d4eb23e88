package lb

import (
	"context"
	"errors"
	"time"
)

// auditor compares the kernel with what was left there and with what should be
// there, and repairs it. It belongs to the balancer's goroutine.
type auditor struct {
	pace    readbackPace // when services are read back
	reports reportLog

	// The balancer's parts, which it uses.
	kernel     *kernel
	reconciler *reconciler
	failures   *failures
	clock      *alarmClock // alarmVerify and alarmProbe are set here
	count      *Counters   // written here: what comparisons found
	reconcile  func(ctx context.Context, now time.Time)
}

// setUp makes what is beside the services, and adopts the services.
func (a *auditor) setUp(ctx context.Context, now time.Time, r *Report) error {
	var err error
	a.kernel.write(ctx, func() { err = a.kernel.driver.Setup(ctx) })
	if err != nil {
		a.failures.report(now, "set up driver "+a.kernel.driverName(), err)
		return err
	}
	if err := a.readBack(ctx, r, true); err != nil {
		a.failures.report(now, "read the kernel's table", err)
		return err
	}
	return nil
}

// examine compares with the kernel: what is beside the services and, in full,
// the services. It repairs what it finds if asked to.
func (a *auditor) examine(ctx context.Context, now time.Time, full, repair bool) Report {
	r := Report{At: now, Driver: a.kernel.driverName(), Full: full}
	begin := time.Now()
	defer func() { r.Took = time.Since(begin) }()
	found, err := a.kernel.driver.Check(ctx)
	r.Findings = found
	broken := len(found) > 0 || errors.Is(err, ErrDrift)
	if err != nil && (!broken || !repair) {
		r.Error = "check: " + err.Error()
		if repair { // what is programmed goes on working; ask again soon
			a.failures.report(now, "verify", err)
			a.clock.setNoLater(alarmVerify, now.Add(a.failures.nextBackoff()))
		}
		return r
	}
	switch {
	case broken && repair:
		r.Full = true
		err = a.setUp(ctx, now, &r)
	case full:
		if err = a.readBack(ctx, &r, repair); err != nil && repair {
			a.failures.report(now, "read the kernel's table", err)
		}
	}
	if err != nil {
		r.Error = "services were not compared: " + err.Error()
		if repair { // the driver is set up again, after a while
			a.kernel.ready = false
			a.clock.setNoLater(alarmProbe, now.Add(a.failures.nextBackoff()))
		}
	}
	if repair && a.reconciler.everything {
		a.reconciler.collect()
		a.reconcile(ctx, now)
	}
	if repair && len(r.Findings) > 0 {
		a.markRepaired(ctx, &r)
	}
	r.Pending = len(a.reconciler.failed)
	if repair && err == nil && r.Pending == 0 && a.reconciler.poolsAsPlanned(now) {
		a.failures.clear()
	}
	return r
}

// readBack compares the services in the kernel with the shadow. If adopt, they
// become the shadow, to be compared with the plan; if not, the next verify
// finds the same again.
func (a *auditor) readBack(ctx context.Context, r *Report, adopt bool) error {
	begin := time.Now()
	actual, err := a.kernel.snapshot(ctx)
	if err != nil {
		return err
	}
	a.pace.done(r.At, time.Since(begin))
	r.Services = len(actual.Services)
	for _, s := range actual.Services {
		r.Backends += len(s.Backends)
	}
	var found []Finding
	if a.kernel.adopted {
		found = Compare(actual, a.kernel.shadow)
	}
	r.Findings = mergeFindings(r.Findings, found)
	if !adopt {
		a.pace.suspected = a.pace.suspected || len(found) > 0
		return nil
	}
	a.pace.suspected = false
	if len(found) > 0 || !a.kernel.adopted {
		a.kernel.adopt(actual)
		a.reconciler.everything = true
	}
	return nil
}

// markRepaired marks which findings are repaired, after the repair.
func (a *auditor) markRepaired(ctx context.Context, r *Report) {
	again, err := a.kernel.driver.Check(ctx)
	repairCheck{
		again: again, checkErr: err, failed: a.reconciler.failed,
		shadow: a.kernel.shadow, desired: a.reconciler.planner.Desired(),
	}.mark(r.Findings)
}

// record counts a report, keeps it for readers, and tells operators of it.
func (a *auditor) record(r *Report) {
	a.count.verified(r)
	a.reports.add(r)
}
