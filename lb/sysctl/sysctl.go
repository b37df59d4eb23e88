// Package sysctl makes kernel settings of a network namespace, says which it
// changed, and puts them back.
package sysctl

import (
	"fmt"
	"strings"
)

// Keys of the settings that make a host forward packets.
const (
	ForwardIPv4 = "net/ipv4/ip_forward"
	ForwardIPv6 = "net/ipv6/conf/all/forwarding"
)

// Setting is a kernel setting, as {"net/ipv4/ip_forward", "1"}.
type Setting struct {
	Key, Value string
	Optional   bool `json:",omitempty"` // a kernel that does not have it is fine
}

// Change is a setting of a namespace that was changed, and as what it was
// found, so that it can be put back.
type Change struct {
	Key   string // as "net/ipv4/ip_forward"
	Found string
	Set   string
	// Dependents are the settings, of single devices and for redirects, that the kernel
	// changes too when the one for all is put back, and that were otherwise.
	Dependents []Setting `json:"Along,omitempty"`
}

// String formats the change for people, as "net.ipv4.ip_forward=1 (was 0)".
func (c Change) String() string {
	return fmt.Sprintf("%s=%s (was %s)", Dotted(c.Key), c.Set, c.Found)
}

// Dotted returns the name of a setting as sysctl(8) writes it. A device's name
// may hold dots, as eth0.100: what sysctl(8) then writes is the key itself.
func Dotted(key string) string {
	if strings.Contains(key, ".") {
		return key
	}
	return strings.ReplaceAll(key, "/", ".")
}
