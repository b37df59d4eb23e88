package state

// This file owns what a node thinks of others.

// Liveness is what this node thinks of an owner: a local overlay, never
// replicated (S9).
type Liveness uint8

// The states of an owner.
const (
	Dead      Liveness = iota // its endpoints are hidden, kept and still relayed
	Kept                      // as dead, but so many vanished with it that it is served after the others (S12)
	Suspected                 // served after the others
	Alive                     // served
)

// String returns the state in lower case.
func (l Liveness) String() string {
	return [...]string{"dead", "suspect", "suspect", "alive"}[min(l, Alive)]
}

// Answers reports whether an owner can settle what is said of its streams: of one
// that does not answer, all replicas come to hold the same (S10, S16).
func (l Liveness) Answers() bool { return l > Kept }
