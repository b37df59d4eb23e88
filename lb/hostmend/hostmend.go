// Package hostmend corrects what lb/hostcheck finds on a host, as far as meshd may
// change it (rule L13 of docs/DESIGN.md): hairpin mode of the ports of bridges, and
// rules in packet filters of others that accept what meshd needs. It works in the
// network namespace of the process. Its functions are safe for concurrent use, but
// not for the same chain or port.
package hostmend

// Port is a port of a bridge. It is identified by both fields: a name may be used again
// for another device.
type Port struct {
	Name  string `json:"name"`
	Index int    `json:"index"` // of the device
}
