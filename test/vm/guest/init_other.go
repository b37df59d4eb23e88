//go:build !linux

package guest

// Here is false: the machine runs Linux.
func Here() bool { return false }

// Main does nothing: the machine runs Linux.
func Main() {}
