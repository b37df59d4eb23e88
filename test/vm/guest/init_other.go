//go:build !linux

package guest

// Main does nothing: the machine runs Linux.
func Main() {}
