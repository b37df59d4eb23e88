package state

// Liveness is what this node thinks of an owner: a local overlay, never
// replicated (S9).
type Liveness uint8

// The states of an owner.
const (
	Dead      Liveness = iota // its endpoints are hidden, kept and still relayed
	Suspected                 // served after the others
	Alive                     // served
)

// String returns the state in lower case.
func (l Liveness) String() string { return [...]string{"dead", "suspect", "alive"}[min(l, Alive)] }
