package state

import (
	"fmt"
	"time"
)

// This file owns how far the times and incarnations that peers claim are believed (S16).

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

// maxIncarnation is the highest incarnation that a life may start with: the
// rest is room for peers that must be answered with a higher one.
const maxIncarnation = maxCounter - 1<<40

// MaxLamport is the highest Lamport time that a life may start with.
const MaxLamport = maxTime - 1<<40

// CheckIncarnation refuses an incarnation from which a life cannot start.
func CheckIncarnation(inc uint64) error {
	if inc == 0 || inc > maxIncarnation {
		return wrong("no node restarts that often: give the node a fresh name and an empty data directory, or correct the "+
			"number in node.json",
			"incarnation %d is not between 1 and %d", inc, uint64(maxIncarnation))
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

// Disbelief is what peers claimed about this node's incarnation and it does not believe.
type Disbelief struct {
	Count uint64 // claims, since the start
	Inc   uint64 // the last one's incarnation; 0: none
}

// String describes d for people. It is empty if there is nothing to describe.
func (d Disbelief) String() string {
	if d.Count == 0 {
		return ""
	}
	return fmt.Sprintf("peers claim that this node has reached incarnation %d, which it has not: ignored", d.Inc)
}
