package gossip

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
)

// The hint fits the kernel's error, wrapped as package net does.
func TestListenHint(t *testing.T) {
	for errno, says := range map[error]string{
		syscall.EADDRINUSE: "dnsmasq has it", syscall.EADDRNOTAVAIL: "not on this host",
		syscall.EACCES: "CAP_NET_BIND_SERVICE", errors.New("x"): "another address or port",
	} {
		if got := ListenHint(&net.OpError{Op: "listen", Err: errno}, "dnsmasq"); !strings.Contains(got, says) {
			t.Errorf("%v: %q, want %q", errno, got, says)
		}
	}
}
