package lb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"meshd/state"
)

// start is when the tests of the balancer's parts begin.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

var quiet = slog.New(slog.DiscardHandler)

// stubDriver is a driver for the tests of parts that need none that works.
type stubDriver struct {
	Unsupported

	number  uint64          // of Number
	applied []Op            // by Apply
	refuse  map[OpKind]bool // kinds of operations that Apply fails
	left    int             // of Leave
	leaves  []Leaving       // calls of Leave
	closed  bool
}

func (d *stubDriver) Number(context.Context) (uint64, error) { return d.number, nil }

func (d *stubDriver) Apply(_ context.Context, ops []Op) []error {
	d.number++
	errs := make([]error, len(ops))
	for i, op := range ops {
		if d.refuse[op.Kind] {
			errs[i] = errors.New("refused")
			continue
		}
		d.applied = append(d.applied, op)
	}
	return errs
}

func (d *stubDriver) Leave(_ context.Context, how Leaving) (int, error) {
	d.leaves = append(d.leaves, how)
	return d.left, nil
}

func (d *stubDriver) Close() error { d.closed = true; return nil }

// tcpService returns a service with backends 10.0.0.1, 10.0.0.2 … of these weights.
func tcpService(weights ...uint32) *Service {
	s := &Service{Key: Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: state.TCP}, Scheduler: "wrr"}
	for i, w := range weights {
		s.Backends = append(s.Backends, Backend{Addr: netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:80", i+1)), Weight: w})
	}
	return s
}

// Rule L5: a drain lasts until the backend is idle or its time is over, and the
// outcome is counted.
func TestDrainsEnd(t *testing.T) {
	t.Parallel()
	have, want := tcpService(0, 0, 1), tcpService()
	k, first, second := have.Key, have.Backends[0].Addr, have.Backends[1].Addr
	d := newDrains(time.Second, 30*time.Second, quiet)
	if look := d.update(k, have, want, start); !look.Equal(start.Add(time.Second)) || d.backends != 2 {
		t.Fatalf("%d backends drain, first look at %v", d.backends, look)
	}
	if d.over(k, first, start) || !d.deadline(k, first).Equal(start.Add(30*time.Second)) {
		t.Errorf("a drain that has just begun: deadline %v", d.deadline(k, first))
	}
	oneBusy := func([]Key) (map[Key]Usage, error) {
		return map[Key]Usage{k: {Backends: map[netip.AddrPort]BackendUsage{second: {Active: 3}}}}, nil
	}
	now := start.Add(time.Second)
	over, next := d.step(now, oneBusy)
	if !slices.Equal(over, []Key{k}) || !next.Equal(now.Add(2*time.Second)) {
		t.Errorf("over are %v; next look at %v", over, next)
	}
	if !d.over(k, first, now) || d.over(k, second, now) {
		t.Errorf("idle backend over: %v, busy one: %v", d.over(k, first, now), d.over(k, second, now))
	}
	d.update(k, tcpService(1, 0), want, now) // the first is gone from the kernel, or has a weight again
	if d.backends != 1 || d.ended[DrainIdle] != 1 {
		t.Errorf("%d backends drain, ended %v", d.backends, d.ended)
	}
	if now = start.Add(30 * time.Second); !d.over(k, second, now) {
		t.Error("a drain does not end at its deadline")
	}
	d.end(k, tcpService(1, 1), now)
	if d.backends != 0 || len(d.byService) != 0 || d.ended[DrainReturned] != 1 {
		t.Errorf("%d backends drain, ended %v", d.backends, d.ended)
	}
	if over, next := d.step(now, oneBusy); over != nil || !next.IsZero() {
		t.Errorf("nothing drains: over %v, next look %v", over, next)
	}
}

// Without a driver, or without its answer, no drain is over before its time.
func TestDrainsWithoutUsage(t *testing.T) {
	t.Parallel()
	have := tcpService(0)
	for name, usage := range map[string]usageFunc{
		"no driver": nil,
		"error":     func([]Key) (map[Key]Usage, error) { return nil, errors.New("no answer") },
		"unknown":   func([]Key) (map[Key]Usage, error) { return nil, nil },
	} {
		d := newDrains(time.Second, 30*time.Second, quiet)
		d.update(have.Key, have, nil, start)
		if over, next := d.step(start.Add(time.Second), usage); len(over) > 0 || next.IsZero() {
			t.Errorf("%s: over %v, next look %v", name, over, next)
		}
	}
}

// Rule L15: what is announced is compared once, and not before the rest is over.
func TestAlertsTake(t *testing.T) {
	t.Parallel()
	var a triggers
	asked := 0
	never := func() bool { asked++; return false }
	if compare, again := a.take(start, never); compare || !again.IsZero() || asked != 1 {
		t.Errorf("nothing happened: compare %v, again %v, asked %d times", compare, again, asked)
	}
	if compare, _ := a.take(start, func() bool { return true }); !compare {
		t.Error("the number of the ruleset is another one, and nothing is compared")
	}
	a.restUntil(start.Add(time.Second))
	if at := a.raise(start); !at.Equal(start.Add(time.Second)) {
		t.Errorf("announced while resting: compared at %v", at)
	}
	if compare, again := a.take(start, never); compare || !again.Equal(start.Add(time.Second)) || asked != 1 {
		t.Errorf("resting: compare %v, again %v, asked %d times", compare, again, asked)
	}
	if compare, _ := a.take(start.Add(time.Second), never); !compare {
		t.Error("announced, rested, and not compared")
	}
	if compare, _ := a.take(start.Add(time.Second), never); compare {
		t.Error("announced once, compared twice")
	}
}

// Rule L15: a write of our own is no change by others, and hides none.
func TestKernelTellsOwnWritesFromOthers(t *testing.T) {
	t.Parallel()
	ctx, polled := t.Context(), true
	d := &stubDriver{number: 7}
	k := kernel{driver: d, shadow: NewTable(), pollRules: func() bool { return polled }, count: &Counters{}}
	k.seenNumber = k.rulesetNumber(ctx)
	k.apply(ctx, []Op{{Kind: SetPool, Pool: Pool{Prefix: netip.MustParsePrefix("10.96.0.0/16")}}})
	if k.othersWrote(ctx) || len(k.shadow.Pools) != 1 || k.count.Applies != 1 {
		t.Errorf("after a write of our own: %v, %v", k.shadow.Pools, k.count)
	}
	d.number++
	if !k.othersWrote(ctx) {
		t.Error("a write by others is not noticed")
	}
	k.write(ctx, func() { d.number++ })
	if !k.othersWrote(ctx) {
		t.Error("a write of our own hides one by others")
	}
	if polled = false; k.othersWrote(ctx) {
		t.Error("the kernel is asked for what is announced")
	}
}

// Rule L2: without its pool a service is not made.
func TestKernelAppliesPoolsFirst(t *testing.T) {
	t.Parallel()
	s, d := tcpService(1), &stubDriver{refuse: map[OpKind]bool{SetPool: true}}
	k := kernel{driver: d, shadow: NewTable(), pollRules: func() bool { return false }, count: &Counters{}}
	ops := []Op{
		{Kind: SetPool, Pool: Pool{Prefix: netip.MustParsePrefix("10.96.0.0/16")}},
		{Kind: SetService, Key: s.Key, Service: s},
		{Kind: SetBackend, Key: s.Key, Backend: s.Backends[0]},
	}
	_, errs := k.applyOrdered(t.Context(), ops)
	if len(d.applied) != 0 || errors.Is(errs[0], errNoPool) ||
		!errors.Is(errs[1], errNoPool) || !errors.Is(errs[2], errNoPool) {
		t.Errorf("applied %v, errors %v", d.applied, errs)
	}
	d.refuse = nil
	if _, errs := k.applyOrdered(t.Context(), ops); errors.Join(errs...) != nil || len(d.applied) != 3 {
		t.Errorf("applied %v, errors %v", d.applied, errs)
	}
}

// Rule L14: what is left behind has the time of a drain, and is cut then.
func TestRetirementCuts(t *testing.T) {
	t.Parallel()
	old, chosen := &stubDriver{left: 2}, &stubDriver{}
	cfg := Config{
		Former: []Driver{old}, Drivers: []Driver{chosen}, DrainPoll: time.Second, RetryMax: time.Minute, Log: quiet,
	}
	r := newRetirement(&cfg, 5*time.Second)
	k := kernel{driver: chosen, shadow: NewTable(), pollRules: func() bool { return false }, count: &Counters{}}
	if !r.begin(chosen, start).Equal(start) || !r.begin(chosen, start).IsZero() {
		t.Error("a retirement begins once for each driver that is chosen")
	}
	var looks []time.Duration
	for now := start; ; {
		next := r.step(t.Context(), now, &k)
		if next.IsZero() {
			break
		}
		looks = append(looks, next.Sub(start))
		if now = next; now.Equal(start.Add(5 * time.Second)) {
			old.left = 0
		}
	}
	if want := []time.Duration{time.Second, 3 * time.Second, 5 * time.Second}; !slices.Equal(looks, want) {
		t.Errorf("looks after %v, want %v", looks, want)
	}
	n := len(old.leaves)
	if n != 4 || old.leaves[n-2].Cut || !old.leaves[n-1].Cut || !old.closed || len(chosen.leaves) > 0 {
		t.Errorf("the former driver was asked %v, closed %v; the chosen one %v", old.leaves, old.closed, chosen.leaves)
	}
}

// Rule L7: drivers are tried in order, each once in a round.
func TestDriverChoice(t *testing.T) {
	t.Parallel()
	works := &workingDriver{Unsupported{Driver: "nft"}}
	c := driverChoice{
		candidates: []Driver{&Unsupported{Driver: "ipvs", Why: errors.New("no module")}, works},
		log:        quiet,
	}
	const none = "no load balancing driver works here: "
	if d := c.next(t.Context()); d != Driver(works) || c.reason() != none+"ipvs: no module" {
		t.Errorf("chosen is %v, %q", d, c.reason())
	}
	c.refuse(works, errors.New("too hopeful"))
	if d := c.next(t.Context()); d != Driver(works) || len(c.refused) != 1 {
		t.Errorf("in the second round %v, refused %v", d, c.refused)
	}
	c.refuseAll(errors.New("process 7 has it"))
	if c.reason() != none+"ipvs and nft: process 7 has it" {
		t.Errorf("%q", c.reason())
	}
	if off := (&driverChoice{}); off.reason() != "load balancing is off" || off.next(t.Context()) != nil {
		t.Errorf("without drivers: %q", off.reason())
	}
}

type workingDriver struct{ Unsupported }

func (*workingDriver) Probe(context.Context) error { return nil }

// Services are read back when suspected or after a while, for a small part of the
// time.
func TestReadbackPace(t *testing.T) {
	t.Parallel()
	p := readbackPace{every: 10 * time.Minute}
	if !p.due(start) || p.resting(start) {
		t.Error("the first readback is not due")
	}
	p.done(start, time.Second)
	if p.due(start.Add(9*time.Minute)) || !p.due(start.Add(10*time.Minute)) {
		t.Error("another readback is not due after ten minutes, or before")
	}
	if !p.resting(start.Add(49*time.Second)) || p.resting(start.Add(50*time.Second)) {
		t.Error("a readback that took a second is not followed by 50 s of rest")
	}
	p.suspect(start.Add(2 * time.Second))
	if now := start.Add(2 * time.Second); !p.due(now) || p.resting(now) {
		t.Error("a suspicion waits")
	}
}

// The wait after a failure doubles up to its bound; a success begins anew.
func TestFailuresBackOff(t *testing.T) {
	t.Parallel()
	f := failures{min: 100 * time.Millisecond, max: 300 * time.Millisecond, log: quiet}
	f.report(start, "apply", errors.New("no buffer space"))
	waits := []time.Duration{f.nextBackoff(), f.nextBackoff(), f.nextBackoff()}
	want := []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond}
	if !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
	if f.text != "apply: no buffer space" || !f.at.Equal(start) {
		t.Errorf("%q at %v", f.text, f.at)
	}
	f.clear()
	if f.text != "" || f.nextBackoff() != 100*time.Millisecond {
		t.Errorf("after a success: %q", f.text)
	}
}

// Operators are told ten times in a row, then every half minute, and how often
// they were not told.
func TestReportPace(t *testing.T) {
	t.Parallel()
	var p reportPace
	for i := range reportBurst {
		if unreported, allowed := p.take(start); !allowed || unreported != 0 {
			t.Fatalf("report %d: allowed %v, %d before", i, allowed, unreported)
		}
	}
	if _, allowed := p.take(start); allowed {
		t.Error("more in a row than the burst")
	}
	if unreported, allowed := p.take(start.Add(reportEvery)); !allowed || unreported != 1 {
		t.Errorf("half a minute later: allowed %v, %d before", allowed, unreported)
	}
}

// A finding counts as repaired by what is in the kernel after the repair.
func TestRepairCheck(t *testing.T) {
	t.Parallel()
	have, want := tcpService(0, 1), tcpService(0, 1)
	want.Backends = want.Backends[1:]
	k, gone := have.Key, Key{VIP: netip.MustParseAddr("10.96.0.9"), Port: 1, Proto: state.TCP}
	c := repairCheck{
		again:   []Finding{{Area: AreaRule, What: "guard rule"}},
		failed:  map[Key]error{gone: errors.New("refused")},
		shadow:  &Table{Services: map[Key]*Service{k: have}},
		desired: &Table{Services: map[Key]*Service{k: want}},
	}
	findings := []Finding{
		{Area: AreaRule, What: "guard rule"},
		{Area: AreaSysctl, What: "setting"},
		{Area: AreaRoute, Kind: FindingExtra, What: "route"},
		{Area: AreaService, Kind: FindingMissing, key: gone},
		{Area: AreaBackend, Kind: FindingExtra, key: k, backend: have.Backends[0].Addr},
		{Area: AreaBackend, Kind: FindingMissing, key: k, backend: have.Backends[1].Addr},
	}
	c.mark(findings)
	var repaired []bool
	for _, f := range findings {
		repaired = append(repaired, f.Repaired)
	}
	if wantRepaired := []bool{false, true, false, false, true, true}; !slices.Equal(repaired, wantRepaired) {
		t.Errorf("repaired %v, want %v", repaired, wantRepaired)
	}
	if findings[3].Outcome != "refused" || findings[4].Outcome == "" || findings[2].Outcome == "" {
		t.Errorf("notes: %+v", findings)
	}
}
