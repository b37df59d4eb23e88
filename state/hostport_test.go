package state

import (
	"errors"
	"strings"
	"testing"
)

// TestParseHostPort covers the one rule for where a node can be joined (S17).
func TestParseHostPort(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:7946", "10.0.0.1:80": "10.0.0.1:80", "fd00::1": "[fd00::1]:7946", "[fd00::1]": "[fd00::1]:7946",
		"[fd00::1]:80": "[fd00::1]:80",
		"host":         "host:7946", "Host.example.:80": "Host.example.:80", "a_b.c": "a_b.c:7946",
		"127.0.0.1": "127.0.0.1:7946",
		"":          "!neither", ":80": "!neither", "300.1.1.1": "!neither", "300.1.1.1:80": "!neither", "a..b": "!neither",
		"-a": "!neither", "a b": "!neither",
		"host:0": "!no port", "host:99999": "!no port", "host:": "!no port", "host:x": "!no port",
		"10.0.0.1:0": "!has no port", "10.0.0.1:99999": "!no port",
		"fd00::1:7946": "!write [fd00::1]:7946; or [fd00::1:7946], if", "[fd00::1:7946]": "[fd00::1:7946]:7946",
		"fd00::7946": "[fd00::7946]:7946", "::ffff:10.0.0.1": "!write 10.0.0.1:7946",
		"host:80:90": "!not an address", "fd00::1]:80": "!not an address", "0.0.0.0": "!no address of one host",
		"224.0.0.1": "!no address of one host", "[::]:80": "!no address of one host",
		"255.255.255.255": "!no address of one host", "fe80::1": "!one link", "fe80::1%eth0": "!one link",
		"[fe80::1%eth0]:80": "!one link", "fd00::1%eth0": "!one link", "169.254.1.1": "!one link",
	} {
		got, err := ParseHostPort(text)
		if says, bad := strings.CutPrefix(want, "!"); bad {
			if _, typed := errors.AsType[*ValueError](err); !typed || !strings.Contains(err.Error(), says) {
				t.Errorf("%q: %q, %v, want an error of %q", text, got, err, says)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q is %q, %v, want %q", text, got, err, want)
		}
	}
}
