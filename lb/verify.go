package lb

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// auditShare bounds the time spent on reading services back to one part in so
// many: it takes long for large tables, and changes wait meanwhile.
const auditShare = 50

// verify compares with the kernel and repairs, as often as Config says.
func (b *Balancer) verify(ctx context.Context, now time.Time) {
	b.clock.by(alarmVerify, now.Add(b.cfg.Verify))
	if !b.ready {
		return // alarmProbe is set
	}
	full := b.suspect || !now.Before(b.fullAt.Add(b.cfg.Audit))
	if w, ok := b.driver.(Watchful); !full && (!ok || !w.Untouched(ctx)) {
		full = true
	}
	b.glances.number = b.number(ctx) // what others wrote until now is looked at now
	late := now.Before(b.fullAfter)
	if full && late {
		b.clock.by(alarmVerify, b.fullAfter)
	}
	r := b.examine(ctx, now, full && !late, true)
	b.file(&r)
}

// Verify compares what is in the kernel with what should be there, now and in
// full (L1), and repairs it if asked to. What differs is in the report; what
// was repaired is marked. Changes of the views wait meanwhile. The error is
// ErrStopped or that of ctx; that nothing could be compared is in the report.
func (b *Balancer) Verify(ctx context.Context, repair bool) (Report, error) {
	return ask(ctx, b, func(run context.Context) Report {
		now := time.Now()
		if !b.ready || b.held {
			return Report{At: now, Driver: b.driverName(), Error: b.notReady()}
		}
		b.collect()
		b.reconcile(run, now) // what is on its way is no difference
		r := b.examine(run, now, true, repair)
		if repair {
			b.file(&r)
		}
		b.publish()
		return r
	})
}

// notReady says why nothing can be compared.
func (b *Balancer) notReady() string {
	var why []string
	for _, r := range b.refused {
		why = append(why, r.Driver+": "+r.Reason)
	}
	switch {
	case b.held:
		return "the daemon is stopping; the kernel stays as it is"
	case b.trouble.text != "":
		return b.trouble.text
	case len(why) > 0:
		return "no load balancing driver works here: " + strings.Join(why, "; ")
	case len(b.cfg.Drivers) == 0:
		return "load balancing is off"
	}
	return "the driver is not set up yet"
}

// examine compares with the kernel: what is beside the services and, in full,
// the services. It repairs what it finds if asked to.
func (b *Balancer) examine(ctx context.Context, now time.Time, full, repair bool) Report {
	r := Report{At: now, Driver: b.driver.Name(), Full: full}
	begin := time.Now()
	defer func() { r.Took = time.Since(begin) }()
	found, err := b.driver.Check(ctx)
	r.Findings = found
	broken := len(found) > 0 || errors.Is(err, ErrDrift)
	if err != nil && (!broken || !repair) {
		r.Error = "check: " + err.Error()
		if repair { // what is programmed goes on working; ask again soon
			b.fail(now, "verify", err)
			b.clock.by(alarmVerify, now.Add(b.nextBackoff()))
		}
		return r
	}
	switch {
	case broken && repair:
		r.Full = true
		err = b.setUp(ctx, now, &r)
	case full:
		if err = b.readBack(ctx, &r, repair); err != nil && repair {
			b.fail(now, "read the kernel's table", err)
		}
	}
	if err != nil {
		r.Error = "services were not compared: " + err.Error()
		if repair {
			b.stumble(now)
		}
	}
	if repair && b.full {
		b.collect()
		b.reconcile(ctx, now)
	}
	if repair && len(r.Findings) > 0 {
		b.judge(ctx, &r)
	}
	poolsToo := func() bool { return len(diffKeys(b.shadow, b.planner.Desired(), nil, b.policy(now))) == 0 }
	if r.Pending = len(b.failed); repair && err == nil && r.Pending == 0 && poolsToo() {
		b.backoff = 0
		b.trouble.clear()
	}
	return r
}

// stumble makes the driver be set up again, after a while.
func (b *Balancer) stumble(now time.Time) {
	b.ready = false
	b.retryProbe(now, b.nextBackoff())
}

// readBack compares the services in the kernel with the shadow. If adopt, they
// become the shadow, to be compared with the plan; if not, the next verify
// finds the same again.
func (b *Balancer) readBack(ctx context.Context, r *Report, adopt bool) error {
	begin := time.Now()
	var actual *Table
	var err error
	b.write(ctx, func() { actual, err = b.driver.Snapshot(ctx) }) // which repairs what it finds
	if err != nil {
		return err
	}
	b.fullAt = r.At
	b.fullAfter = r.At.Add(auditShare * time.Since(begin))
	r.Services = len(actual.Services)
	for _, s := range actual.Services {
		r.Backends += len(s.Backends)
	}
	var found []Finding
	if b.adopted {
		found = Compare(actual, b.shadow)
	}
	r.Findings = mergeFindings(r.Findings, found)
	if !adopt {
		b.suspect = b.suspect || len(found) > 0
		return nil
	}
	b.suspect = false
	if len(found) > 0 || !b.adopted {
		actual.relabel(b.shadow)
		b.shadow = actual
		b.full = true
	}
	return nil
}

// relabel takes the labels that the kernel does not hold from another table.
func (t *Table) relabel(from *Table) {
	for prefix, p := range t.Pools {
		p.Network = from.Pools[prefix].Network
		t.Pools[prefix] = p
	}
	for k, s := range t.Services {
		known := from.Services[k]
		switch {
		case known == nil:
		case known.Equal(s):
			t.Services[k] = known
		default:
			s.Network, s.Name, s.Drain = known.Network, known.Name, known.Drain
		}
	}
}

// judge marks which findings are repaired, after the repair.
func (b *Balancer) judge(ctx context.Context, r *Report) {
	still := map[string]bool{}
	again, err := b.driver.Check(ctx)
	for _, f := range again {
		still[f.What] = true
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		switch f.Area {
		case AreaService, AreaBackend:
			f.Repaired, f.Note = b.judgeService(f)
		case AreaRoute:
			f.Repaired = err == nil && !still[f.What]
			if f.Kind == FindingExtra && f.Repaired {
				f.Repaired, f.Note = false, "adopted; it goes once the tables of all networks are complete and its services are gone"
			}
		default:
			f.Repaired = err == nil && !still[f.What]
		}
		if !f.Repaired && f.Note == "" && err != nil {
			f.Note = err.Error()
		}
	}
}

// judgeService tells what became of a finding about a service.
func (b *Balancer) judgeService(f *Finding) (repaired bool, note string) {
	if err := b.failed[f.key]; err != nil {
		return false, err.Error()
	}
	s, want := b.shadow.Services[f.key], b.planner.Desired().Services[f.key]
	switch {
	case f.Kind == FindingExtra && f.Area == AreaService && s != nil:
		return s.closing(), "it goes when its connections have ended"
	case f.Kind != FindingExtra || s == nil:
		if f.Area == AreaService && want == nil {
			return true, "it was on its way out"
		}
		return true, ""
	}
	left, there := s.Backend(f.backend)
	if there && !wanted(want, f.backend) {
		return left.Weight == 0, "it goes when its connections have ended"
	}
	return true, ""
}

// closing reports whether the service takes no new connections.
func (s *Service) closing() bool {
	return !slices.ContainsFunc(s.Backends, func(b Backend) bool { return b.Weight > 0 })
}

// file counts a report, keeps it, and tells of what it found, unless others make
// differences without end.
func (b *Balancer) file(r *Report) {
	b.count.verified(r)
	if n := len(r.Findings); n > maxFindings {
		r.More, r.Findings = n-maxFindings, r.Findings[:maxFindings]
	}
	filed := *r
	b.last.Store(&filed)
	if len(r.Findings) == 0 {
		return
	}
	b.drifted.Store(&filed)
	untold, tell := b.tellings.take(r.At)
	if !tell {
		return
	}
	var first []string
	repaired := 0
	for i, f := range r.Findings {
		if f.Repaired {
			repaired++
		}
		if i < loggedFindings {
			first = append(first, f.String())
		}
	}
	b.cfg.Log.Warn("load balancing was changed by someone else",
		slog.Int("differences", len(r.Findings)+r.More), slog.Int("repaired", repaired), slog.Any("first", first),
		slog.Int("untold", untold))
	b.cfg.OnDrift(filed)
}

// loggedFindings bounds a log line.
const loggedFindings = 5

// LastReport returns the latest comparison with the kernel, and the latest that
// found something; nil if there was none. They are immutable. It does not block.
func (b *Balancer) LastReport() (latest, drifted *Report) { return b.last.Load(), b.drifted.Load() }
