//go:build !linux

package rulewatch

// idleKernel is a namespace in which nothing is balanced, so nothing is announced.
type idleKernel struct{ closed chan struct{} }

// Open returns a subscription that never announces anything.
func Open(string, func(port uint32) bool) (Kernel, error) {
	return idleKernel{make(chan struct{})}, nil
}

func (s idleKernel) Wait() (int, error) { <-s.closed; return 0, nil }
func (s idleKernel) Listen(bool) error  { return nil }
func (s idleKernel) Close() error       { close(s.closed); return nil }
