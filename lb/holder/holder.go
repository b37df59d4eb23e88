// Package holder sees to it that one process only programs the load balancing
// of a network namespace (L10): two would each take away what the other made.
package holder

import (
	"errors"
	"sync"
)

// ErrTaken is wrapped by the error of Take while another process holds the
// namespace.
var ErrTaken = errors.New("load balancing of this network namespace is another process's")

// Holder is the right to program one network namespace, once it is taken. It
// ends with the process at the latest, however that ends. Its methods are safe
// for concurrent use.
type Holder struct {
	path string

	mu   sync.Mutex // guards held
	held closer     // nil: not taken
}

// closer is what stands for a hold.
type closer interface{ Close() error }

// New returns the holder of the network namespace of that path, or of the
// process's own for "". It takes nothing yet.
func New(path string) *Holder { return &Holder{path: path} }

// Take takes the namespace, and does nothing if it has. The error wraps
// ErrTaken and names the process that has it; asking again later may help. Where
// the system cannot tell, everybody may.
func (h *Holder) Take() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held != nil {
		return nil
	}
	held, err := take(h.path)
	if held != nil {
		h.held = held
	}
	return err
}

// Release lets go of the namespace. What is programmed stays as it is.
func (h *Holder) Release() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.held
	if h.held = nil; held == nil {
		return nil
	}
	return held.Close()
}
