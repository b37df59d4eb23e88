package state

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// forge returns a whole snapshot of an owner's stream, as somebody else may make it.
func forge(o NodeID, inc, version uint64, rs ...Record) *Delta {
	s := newStream(o)
	d := &Delta{Network: "net", Owner: o, Inc: inc, To: version, Upto: version, Snapshot: true}
	for i := range rs {
		if rs[i].Version == 0 {
			rs[i].Version = uint64(i + 1)
		}
		e, _ := newEntry(s, rs[i])
		d.Sum += e.sum()
	}
	d.Records = rs
	return d
}

// TestIncarnationsAreBelievedInSteps covers S16: a claim about a node's own
// stream that leaves no room above itself is ignored, and one that is believed
// is answered by an incarnation that every replica accepts.
func TestIncarnationsAreBelievedInSteps(t *testing.T) {
	a, b := pair(DefaultLimits())
	commit(t, a, opaque("k", "v"))
	pull(t, a, b, "a", 1<<20)
	for _, inc := range []uint64{1<<62 - 1, 1 << 62, 1 << 40, 2 + incarnationStep} {
		if a.SelfAhead(Head{Inc: inc, Version: 9}) || a.SelfRetired(Head{Inc: inc, Version: 9}) {
			t.Errorf("S16: incarnation %d is believed", inc)
		}
	}
	if a.disbelief.Count != 8 || a.disbelief.String() == "" {
		t.Errorf("S16: not counted: %+v", a.disbelief)
	}
	claimed := Head{Inc: 1 + incarnationStep, Version: 9}
	if !a.SelfAhead(claimed) {
		t.Fatal("S7: a claim that can be true is not answered")
	}
	a.Reincarnate(claimed.Inc + 1)
	pull(t, a, b, "a", 1<<20)
	if h, _ := b.Head("a"); h.Inc != claimed.Inc+1 {
		t.Fatalf("S16: the answer was not accepted: %+v", h)
	}
}

// TestForgedStreamsDoNotOutlastTheirAuthor covers S16: a replica that never met
// the owner takes a forged stream for its, and lets go of it on the owner's own
// word; one that knows the owner does not take it at all.
func TestForgedStreamsDoNotOutlastTheirAuthor(t *testing.T) {
	a, b := pair(DefaultLimits())
	b.live["a"] = Alive
	commit(t, a, opaque("k", "v"))
	forged := forge("a", 1<<61, 7, Record{Kind: 200, Key: "evil"})
	if r, err := b.Apply(forged); r != Applied {
		t.Fatalf("a first word is taken: %v %v", r, err)
	}
	h, _ := a.Head("a")
	if _, need := b.Want("a", h); need {
		t.Fatal("the forged stream should stand in the way here")
	}
	if !b.OwnerSays("a", h) {
		t.Fatal("S16: the owner's word is not taken")
	}
	pull(t, a, b, "a", 1<<20)
	if keys(b, "a") != "k=v" || b.Hash() != a.Hash() {
		t.Fatalf("S16: %s", keys(b, "a"))
	}
	for _, again := range []*Delta{forged, forge("a", 2+incarnationStep, 7)} {
		if r, _ := b.Apply(again); r != Refused {
			t.Fatalf("S16: taken again: %v", r)
		}
	}
	if b.OwnerSays("a", Head{Inc: 1, Version: 1}) {
		t.Fatal("S16: an owner's word moves an honest stream")
	}
	if _, need := b.Want("a", Head{Inc: 1 << 61}); need {
		t.Fatal("S16: a forged head is asked for")
	}
}

// TestKnownOwnersAreNotForgedUpwards covers S16 at a replica that holds the stream.
func TestKnownOwnersAreNotForgedUpwards(t *testing.T) {
	a, b := pair(DefaultLimits())
	commit(t, a, opaque("k", "v"))
	pull(t, a, b, "a", 1<<20)
	b.live["a"] = Alive
	if r, err := b.Apply(forge("a", 1<<61, 7)); r != Refused || err == nil {
		t.Fatalf("S16: %v %v", r, err)
	}
}

// TestReplicasOfTheDeadAgree covers S10 and S16: where no owner can settle it,
// those that heard a high incarnation first and those that heard a low one come
// to hold the same; the owner's word counts when it is back.
func TestReplicasOfTheDeadAgree(t *testing.T) {
	low, high := NewStore("low", 1, DefaultLimits(), new(testClock)), NewStore("high", 1, DefaultLimits(), new(testClock))
	a, b := low.Join("net"), high.Join("net")
	if _, err := a.Apply(forge("gone", 7, 9)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Apply(forge("gone", 1<<40, 1)); err != nil {
		t.Fatal(err)
	}
	pull(t, b, a, "gone", 1<<20)
	if a.Hash() != b.Hash() {
		t.Fatal("S10: two replicas of a dead owner's stream differ for good")
	}
	for s, key := range map[*Store]string{low: "x", high: "y"} {
		if _, err := s.Apply(forge("two", 1, 1, Record{Kind: 200, Key: key})); err != nil {
			t.Fatal(err)
		}
	}
	pull(t, b, a, "two", 1<<20)
	pull(t, a, b, "two", 1<<20)
	if a.Hash() != b.Hash() {
		t.Fatal("S10: two contents at one head of a dead owner's stream")
	}
	bad := &Delta{Network: "net", Owner: "two", Inc: 1, From: 1, After: 1, To: 2, Upto: 2, Sum: 9}
	for _, s := range []*Store{low, high} {
		if _, err := s.Apply(bad); err == nil {
			t.Fatal("a wrong sum is taken")
		}
	}
	third := NewStore("third", 1, DefaultLimits(), new(testClock)).Join("net")
	pull(t, a, third, "two", 1<<20)
	low.SetLiveness("gone", Alive)
	if !a.OwnerSays("gone", Head{Inc: 7, Version: 9}) {
		t.Fatal("S16: its word does not count")
	}
}

func vipChange(c VIPClaim) Change {
	return Change{Kind: KindVIP, Key: c.Service, Body: string(AppendVIPClaim(nil, c))}
}

// TestTimesOfPeersDoNotEndTheClock covers S16: whatever times a peer states, this
// node can go on to state claims of its own, and its clock stays where it was.
func TestTimesOfPeersDoNotEndTheClock(t *testing.T) {
	for _, evil := range []uint64{firstTime + 1, 1 << 47, maxTime, maxTime + 1, 1 << 62} {
		f := newFleet(pool28, "a", "evil")
		a, e := f.hosts[0], f.hosts[1]
		body := putUint(nil, tagLamport, evil)
		commit(t, a.table, endpoint(t, "t1", "web", "10.0.0.1"))
		if _, err := a.table.Apply(forge("evil", 1, 9,
			Record{Kind: KindSettings, Key: "web", Body: string(putUint(body, tagMode, uint64(ModeDNSRR)))},
			Record{
				Kind: KindVIP, Key: "other",
				Body: string(putUint(putAddr(nil, tagVIP4, netip.MustParseAddr("10.9.0.5")), tagBirth, evil)),
			})); err != nil {
			t.Fatal(err)
		}
		if now := a.store.Clock().Time(); now > 10 {
			t.Fatalf("S16: %d moved the clock to %d", evil, now)
		}
		if a.table.Poison()+a.table.Unbelieved() != 2 {
			t.Errorf("S16: %d is not counted: %d %d", evil, a.table.Poison(), a.table.Unbelieved())
		}
		a.carrier.Services["web"] = &Hosting{Tasks: 1}
		f.carry(t, a)
		if own := a.table.Own(KindSettings); len(own) > 0 {
			t.Errorf("S16: %d is carried for its author: %q", evil, own[0].Body())
		}
		a.carrier.Services["web"].Settings = &Settings{Scheduler: "wlc"}
		a.carrier.Services["new"] = &Hosting{Tasks: 1}
		changes, _, failed := a.carrier.Carry(a.table, f.now)
		if _, refused := a.table.CommitEach(changes); len(refused) > 0 {
			t.Fatalf("S16: after %d: %v", evil, refused)
		}
		if ownClaim(a.table, "new") == nil {
			t.Errorf("S16: after %d a new service has no claim", evil)
		}
		got, _ := a.table.Settings("web")
		switch {
		case evil == maxTime:
			if !errors.Is(failed["web"], errTime) {
				t.Errorf("S16: nothing can be later, and that is not told: %v", failed)
			}
		case got.Scheduler != "wlc":
			t.Errorf("S16: a person cannot override %d: %+v", evil, got)
		}
		a.table.Retire(e.store.Self())
		if got, ok := a.table.Settings("web"); ok && got.Mode == ModeDNSRR {
			t.Errorf("S16: %d outlasts its author: %+v", evil, got)
		}
	}
}

// TestRatchet covers S16: step by step a hostile node gets no further than time allows.
func TestRatchet(t *testing.T) {
	clock := testClock(5)
	b := newBelief(&clock)
	for range 100_000 {
		b.Witness(b.Time() + timeStep)
	}
	if b.Time() > firstTime {
		t.Fatalf("S16: ratcheted to %d at once", b.Time())
	}
	b.now = 365 * 24 * time.Hour
	for range 100_000 {
		b.Witness(b.Time() + timeStep)
	}
	if b.Time() > maxTime>>10 {
		t.Fatalf("S16: ratcheted to %d in a year", b.Time())
	}
	clock = maxTime
	if b.Tick() != maxTime {
		t.Fatal("S16: the clock ticks beyond what can be stated")
	}
}

// TestUnsayableClaimBlocksNoOther covers V2.
func TestUnsayableClaimBlocksNoOther(t *testing.T) {
	a, _ := pair(DefaultLimits())
	good := vipChange(VIPClaim{Service: "good", VIP4: netip.MustParseAddr("10.9.0.1"), Birth: 1})
	bad := Change{Kind: KindVIP, Key: "bad", Body: "x"}
	if ok, err := a.Commit([]Change{bad, good}); ok || err == nil {
		t.Fatal("a batch is all or nothing")
	}
	written, refused := a.CommitEach([]Change{bad, good})
	if !written || len(refused) != 1 || refused["bad"] == nil || a.ownEntry(KindVIP, "good") == nil {
		t.Fatalf("V2: %v %v", written, refused)
	}
}

// TestClaimsAreCarriedVerbatim covers V2 and S11: the fields of a newer version
// survive being carried by this one.
func TestClaimsAreCarriedVerbatim(t *testing.T) {
	f := newFleet(pool28, "a", "new")
	a := f.hosts[0]
	const newer = "\xf0\x03new"
	claim := VIPClaim{Service: "web", VIP4: netip.MustParseAddr("10.9.0.5"), Birth: 3}
	vip := string(AppendVIPClaim(nil, claim)) + newer
	settings := string(AppendSettings(nil, SettingsClaim{Settings: Settings{Scheduler: "wlc"}, Lamport: 4})) + newer
	if _, err := a.table.Apply(forge("new", 1, 9,
		Record{Kind: KindVIP, Key: "web", Body: vip}, Record{Kind: KindSettings, Key: "web", Body: settings})); err != nil {
		t.Fatal(err)
	}
	commit(t, a.table, endpoint(t, "t1", "web", "10.0.0.1"))
	f.run("web", 1, 0)
	for range 3 {
		f.carry(t, a)
		if e := a.table.ownEntry(KindVIP, "web"); e == nil || e.Body() != vip {
			t.Fatalf("V2: the claim is not carried as it came: %v", e)
		}
		if e := a.table.ownEntry(KindSettings, "web"); e == nil || e.Body() != settings {
			t.Fatalf("V2: the settings are not carried as they came: %v", e)
		}
		a.table.Retire("new")
	}
}

// TestLivesThatCannotStart: a poisoned data directory is refused with the way out.
func TestLivesThatCannotStart(t *testing.T) {
	for _, err := range []error{
		CheckIncarnation(0), CheckIncarnation(1 << 62), CheckIncarnation(1<<64 - 1),
		CheckLamport(1 << 62), CheckLamport(maxTime),
	} {
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "node.json") {
			t.Errorf("%v", err)
		}
	}
	if err := errors.Join(CheckIncarnation(1), CheckIncarnation(1<<20), CheckLamport(0),
		CheckLamport(firstTime)); err != nil {
		t.Error(err)
	}
}

// TestAHighClockMovesNoService covers S16: a peer has put the clocks of a mesh as
// high as they believe, and the services claimed since bear such times. A host
// that starts empty believes less; it must not claim anew what they have.
func TestAHighClockMovesNoService(t *testing.T) {
	for _, up := range []time.Duration{0, 365 * 24 * time.Hour} {
		f := newFleet(pool28, "a", "b", "fresh")
		old := f.hosts[:2]
		for _, h := range old {
			h.store.clock.now = up
			h.clock.Witness(firstTime + uint64(up/time.Second)*timeRate)
		}
		for i := range 5 {
			f.run(fmt.Sprint("s", i), 1, i%2)
		}
		f.settle(t, old...)
		before := map[string]netip.Addr{}
		for i := range 5 {
			before[fmt.Sprint("s", i)] = old[0].table.View().Service(fmt.Sprint("s", i)).VIP4
		}
		for i := range 5 {
			f.run(fmt.Sprint("s", i), 1, 2)
		}
		f.exchange(t, f.hosts...)
		for range 20 {
			f.carry(t, f.hosts...)
			f.exchange(t, f.hosts...)
			f.now += time.Second
		}
		for s, vip := range before {
			if now := f.vip(t, s); now != vip {
				t.Errorf("S16: after %v a fresh host moved %s from %s to %s", up, s, vip, now)
			}
		}
	}
}
