// Package hostmend changes the little of a host that is meshd's to change when
// lb/hostcheck finds something against it (rule L13 of docs/DESIGN.md). It works
// in the network namespace of the process.
package hostmend

// Port is a port of a bridge. Names are used again for other devices, numbers
// are not.
type Port struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
}
