package state

import (
	"fmt"
	"time"
)

// What a peer claims is believed in bounded steps only (S16): a number that
// moves this node's own counters must leave room above it, or one packet would
// end them for good.
const (
	// maxCounter bounds incarnations and versions (G8).
	maxCounter = 1 << 62
	// maxTime bounds Lamport times and births: above it a record is poison, on
	// every node alike. Believed times stay far below.
	maxTime = 1 << 48

	incarnationStep = 1 << 20 // a life costs one
	firstTime       = 1 << 32 // believed by everybody, so also by a new node with clock 0
	timeStep        = 1 << 20 // above the clock of a node's start
	timeRate        = 1 << 10 // and per second since
	birthSlack      = 1 << 40 // what a clock can be ahead of another's belief
)

// MaxIncarnation is the highest incarnation that a life may start with: the
// rest is room for peers that must be answered with a higher one.
const MaxIncarnation = maxCounter - 1<<40

// MaxLamport is the highest Lamport time that a life may start with.
const MaxLamport = maxTime - 1<<40

// CheckIncarnation refuses an incarnation from which a life cannot start.
func CheckIncarnation(inc uint64) error {
	if inc == 0 || inc > MaxIncarnation {
		return wrong("no node restarts that often: give the node a fresh name and an empty data directory, or correct the "+
			"number in node.json",
			"incarnation %d is not between 1 and %d", inc, uint64(MaxIncarnation))
	}
	return nil
}

// CheckLamport refuses a Lamport time from which a clock cannot start.
func CheckLamport(t uint64) error {
	if t > MaxLamport {
		return wrong("correct the number in node.json: 0 is always right, the mesh tells the time",
			"the Lamport time %d is above %d, which no mesh reaches", t, uint64(MaxLamport))
	}
	return nil
}

// belief is a store's clock: it follows the times of peers only as far as they
// can be true (S16). It belongs to the store's goroutine.
type belief struct {
	clock Clock
	start uint64        // the clock's time when the store was made
	now   time.Duration // since about then
}

func newBelief(c Clock) *belief { return &belief{clock: c, start: c.Time()} }

// Time returns the clock's time.
func (b *belief) Time() uint64 { return b.clock.Time() }

// Tick advances the clock, but not beyond what a record may bear.
func (b *belief) Tick() uint64 {
	if t := b.clock.Time(); t >= maxTime {
		return maxTime
	}
	return b.clock.Tick()
}

// Witness moves the clock past a time that is believed.
func (b *belief) Witness(t uint64) {
	if b.believes(t) {
		b.clock.Witness(t)
	}
}

// believes reports whether a time in a peer's statement can be true. What is
// not believed is shown like any other, on all nodes alike, but it neither
// moves the clock nor is it carried for its author.
func (b *belief) believes(t uint64) bool {
	return t <= max(firstTime, b.start+timeStep)+uint64(b.now/time.Second)*timeRate
}

// plausible reports whether a claim of that birth can be one that a node made in
// good faith. Clocks that peers have put as high as they believe are ahead of
// what a node believes that started later; it must not claim anew, at a lower
// time, what such nodes have claimed.
func (b *belief) plausible(birth uint64) bool {
	return birth <= birthSlack || b.believes(birth-birthSlack)
}

// after returns a time later than t for what a person states against a claim
// of that time, and whether there is one.
func (b *belief) after(t uint64) (uint64, bool) {
	next := max(b.Tick(), t+1)
	return next, next <= maxTime
}

// Disbelief tells what peers claimed of this node that it does not believe.
type Disbelief struct {
	Count uint64 // claims, since the start
	Inc   uint64 // the last one's incarnation; 0: none
}

// believesOwn reports whether a peer's claim about the incarnation of this
// node's own stream can be true: then it is answered by a higher one (S7). What
// is not believed is counted.
func (t *Table) believesOwn(claimed uint64) bool {
	own := t.inc
	if s := t.streams[t.self]; s != nil {
		own = max(own, s.head.Inc)
	}
	if claimed <= own+incarnationStep {
		return true
	}
	t.disbelief.Count++
	t.disbelief.Inc = claimed
	return false
}

// maxWords bounds how many owners' words are kept.
const maxWords = 1024

// acceptable reports whether an incarnation that a peer says an owner has
// reached can be true, by what is held of the owner here (S16). It leaves twice
// the room that the owner itself believes, so that one who must go above a
// claim that it believed is always accepted. For an owner that does not live
// there is no such measure, and nobody to settle a difference: there all
// replicas must come to hold the same, the highest; its word counts when it is
// back.
func (t *Table) acceptable(o NodeID, inc uint64) bool {
	if inc > maxCounter {
		return false
	}
	if !t.live[o].Answers() {
		return true
	}
	if word, ok := t.words[o]; ok {
		return inc <= word+incarnationStep
	}
	known := t.grave[o].Inc
	if s := t.streams[o]; s != nil {
		known = max(known, s.head.Inc)
	}
	return known == 0 || inc <= known+2*incarnationStep
}

// OwnerSays takes an owner's own word for the head of its stream, and reports
// whether that changed anything: what is held here so far above it that its
// owner could not believe it is none of the owner's, and is dropped, so that no
// forged stream outlasts its author (S16).
func (t *Table) OwnerSays(o NodeID, h Head) bool {
	if o == t.self || h.Inc == 0 || h.beyond() {
		return false
	}
	if _, ok := t.words[o]; ok {
		t.words[o] = h.Inc
	}
	held := t.grave[o].Inc
	if s := t.streams[o]; s != nil {
		held = max(held, s.head.Inc)
		if s.stage != nil {
			held = max(held, s.stage.inc)
		}
	}
	if held <= h.Inc+incarnationStep {
		return false
	}
	if len(t.words) >= maxWords {
		clear(t.words)
	}
	t.words[o] = h.Inc
	t.Retire(o)
	t.Readmit(o)
	return true
}

// String says it to people; empty: nothing to say.
func (d Disbelief) String() string {
	if d.Count == 0 {
		return ""
	}
	return fmt.Sprintf("peers claim that this node has reached incarnation %d, which it has not: ignored", d.Inc)
}
