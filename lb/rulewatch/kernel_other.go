//go:build !linux

package rulewatch

// still is a namespace in which nothing is balanced, and so nothing is heard.
type still struct{ closed chan struct{} }

// Open returns a subscription that never tells anything.
func Open(string, func(port uint32) bool) (Kernel, error) { return still{make(chan struct{})}, nil }

func (s still) Wait() (int, error) { <-s.closed; return 0, nil }
func (s still) Listen(bool) error  { return nil }
func (s still) Close() error       { close(s.closed); return nil }
