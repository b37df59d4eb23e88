//go:build !linux

package transport

// forceSendBuffer does nothing elsewhere.
func forceSendBuffer(_, _ int) {}
